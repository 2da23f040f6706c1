"""TensorRT engines: the record beside them, whether they may run here, running and building them."""
