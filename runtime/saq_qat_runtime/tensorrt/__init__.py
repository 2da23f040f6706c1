"""TensorRT engines: the record beside them, whether they may run here, and running them."""
