"""Deploy view to ONNX: the patterns of each target, then one pass a file."""
