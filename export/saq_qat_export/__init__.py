"""Trained networks lowered to integers: ONNX graphs, the integer reference and the proof."""
