"""Arithmetic on constants, done at export instead of by the engine."""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

__all__ = ["fold_into_floats", "write_filled_constants"]


def fold_into_floats(model: ir.Model, weights: Collection[str]) -> None:
    """Write every int32 bias, and the named weights, as the floats they stand for, in place.

    TensorRT's parser refuses int32 biases, and quantized weights without quantized data gain nothing. The
    integers stay what they are: the float is the product that DequantizeLinear would compute.
    """
    for node in list(model.graph):
        codes = node.inputs[0] if node.inputs and node.op_type == "DequantizeLinear" else None
        if codes is not None and (codes.dtype == ir.DataType.INT32 or codes.name in weights):
            scale = _array(node.inputs[1])
            stored = _array(codes).astype(np.float32)
            _replace(model, node, stored * scale.reshape(-1, *[1] * (stored.ndim - 1)))


def write_filled_constants(model: ir.Model) -> None:
    """Replace every ConstantOfShape of a constant shape by the constant, in place; the runtime refuses it."""
    for node in list(model.graph):
        shape = node.inputs[0] if node.op_type == "ConstantOfShape" else None
        sizes = None if shape is None else ir.convenience.get_const_tensor(shape)
        if sizes is None:
            continue
        fill = (
            node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1, "f")
        )
        old, name = node.outputs[0], str(node.outputs[0].name)
        filled = np.full(sizes.numpy(), fill[0])
        constant = ir.tensor(filled, name=name)
        kind = ir.TensorType(constant.dtype)
        value = ir.Value(name=name, const_value=constant, shape=ir.Shape(filled.shape), type=kind)
        old.name = None
        model.graph.register_initializer(value)
        old.replace_all_uses_with(value)
        model.graph.remove(node, safe=True)


def _array(value: ir.Value | None) -> np.ndarray:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"{value}: weights, biases and their scales must be constants")
    return tensor.numpy()


def _replace(model: ir.Model, dequantize: ir.Node, floats: np.ndarray) -> None:
    """The float takes the name of its codes, unless layers whose codes are equal share one tensor of them."""
    old, codes = dequantize.outputs[0], dequantize.inputs[0]
    name = "" if codes is None else str(codes.name)
    if codes is not None and len(codes.uses()) > 1:
        name = str(old.name)
    else:
        del model.graph.initializers[name]
    value = ir.Value(name=name, const_value=ir.tensor(floats, name=name), shape=old.shape, type=old.type)
    old.name = None if old.name == name else old.name
    model.graph.register_initializer(value)
    old.replace_all_uses_with(value)
    model.graph.remove(dequantize, safe=True)
