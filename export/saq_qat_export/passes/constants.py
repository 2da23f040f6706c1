"""Arithmetic on constants, done at export instead of by the engine."""

import numpy as np
import onnx_ir as ir

__all__ = ["fold_biases"]


def fold_biases(model: ir.Model) -> None:
    """Replace every DequantizeLinear of an int32 initializer by its float32 value, in place.

    TensorRT's parser refuses int32 biases. The integers stay what they are: the float is the product that
    DequantizeLinear would compute, one rounding of code times scale.
    """
    for node in list(model.graph):
        codes = node.inputs[0] if node.inputs else None
        if node.op_type != "DequantizeLinear" or codes is None or codes.dtype != ir.DataType.INT32:
            continue
        _replace(model, node, _array(codes).astype(np.float32) * _array(node.inputs[1]))


def _array(value: ir.Value | None) -> np.ndarray:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"{value}: a bias and its scale must be constants")
    return tensor.numpy()


def _replace(model: ir.Model, dequantize: ir.Node, bias: np.ndarray) -> None:
    """The float takes the name of its codes."""
    old, codes = dequantize.outputs[0], dequantize.inputs[0]
    name = "" if codes is None else str(codes.name)
    del model.graph.initializers[name]
    value = ir.Value(name=name, const_value=ir.tensor(bias, name=name), shape=old.shape, type=old.type)
    model.graph.register_initializer(value)
    old.replace_all_uses_with(value)
    model.graph.remove(dequantize, safe=True)
