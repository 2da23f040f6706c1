"""TensorRT engines: built in a process of their own, audited layer by layer, and recorded."""
