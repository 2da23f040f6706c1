"""Integer arithmetic in NumPy, over a deploy view and over a bare ONNX file."""
