"""Every number of a file beside the checkpoint it came from, computed in NumPy by a path of its own."""
