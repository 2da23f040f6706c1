"""Explicit zero points of weights: without one ONNX Runtime keeps the Gemm that reads them in float."""

import numpy as np
import onnx_ir as ir

__all__ = ["add_weight_zero_points"]


def add_weight_zero_points(model: ir.Model) -> None:
    """Give every per-channel DequantizeLinear of int8 weights a zero point of zeros (out,), in place."""
    for node in list(model.graph):
        stored = node.inputs[0] if node.inputs else None
        if node.op_type != "DequantizeLinear" or len(node.inputs) > 2 or stored is None:
            continue
        if stored.dtype == ir.DataType.INT8 and stored.shape is not None:
            zeros = np.zeros(stored.shape.numpy()[:1], dtype=np.int8)
            name = f"{stored.name}_zero_point"
            if name not in model.graph.initializers:
                value = ir.Value(name=name, const_value=ir.tensor(zeros, name=name))
                model.graph.register_initializer(value)
            node.resize_inputs(3)
            node.replace_input_with(2, model.graph.initializers[name])
