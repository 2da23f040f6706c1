"""What our operators become on each target; ``saq_qat_export.graph.onnx_graph`` puts the graphs together."""
