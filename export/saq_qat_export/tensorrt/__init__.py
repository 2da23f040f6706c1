"""Graphs for TensorRT: the rules over our own, the engine of a bundle."""
