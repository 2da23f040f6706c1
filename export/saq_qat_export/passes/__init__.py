"""Rewrites of the exported graph, one promise each; ``saq_qat_export.onnx_graph`` lists them in order."""
