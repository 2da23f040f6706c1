"""What our operators become on each target; ``saq_qat_export.onnx_graph`` puts the graphs together."""
