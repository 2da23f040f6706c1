"""Rewrites of the exported graph, one promise each; ``graph.onnx_graph`` lists them in order."""
