"""Latency to be believed, on a CPU and on a GPU."""
