"""Storage: weights of at most 16 levels become uint4 initializers, widened to int8 when the session loads.

``codes = uint4 * step + minimum`` as Cast, Mul, Sub, Cast, which ONNX Runtime folds into one constant at load
time, so the file shrinks and neither speed nor codes change.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

__all__ = ["Packing", "pack_weights"]


@dataclass(frozen=True)
class Packing:
    """Stored codes are ``minimum + k * step`` with k in 0..15."""

    minimum: int
    step: int


def pack_weights(model: ir.Model, packings: Mapping[str, Packing]) -> None:
    """Replace the named int8 initializers, in place; one with other codes (a constant channel) stays."""
    for name, packing in packings.items():
        value = model.graph.initializers[name]
        if value.const_value is None:
            continue
        codes = value.const_value.numpy().astype(np.int64)
        index, remainder = np.divmod(codes - packing.minimum, packing.step)
        if remainder.any() or index.min() < 0 or index.max() > 15:
            continue
        _replace(model, value, index.astype(np.uint8), packing)


def _replace(model: ir.Model, value: ir.Value, index: np.ndarray, packing: Packing) -> None:
    name = str(value.name)
    users = list(value.uses())
    del model.graph.initializers[name]
    packed = _constant(model, f"{name}_packed", _uint4_tensor(index, f"{name}_packed"))
    step = _constant(model, f"{name}_step", ir.tensor(np.array(packing.step, np.int32), name=f"{name}_step"))
    minimum = _constant(
        model, f"{name}_low", ir.tensor(np.array(-packing.minimum, np.int32), name=f"{name}_low")
    )
    chain = [ir.node("Cast", [packed], {"to": ir.DataType.INT32.value})]
    chain.append(ir.node("Mul", [chain[-1].outputs[0], step]))
    chain.append(ir.node("Sub", [chain[-1].outputs[0], minimum]))
    chain.append(ir.node("Cast", [chain[-1].outputs[0]], {"to": ir.DataType.INT8.value}))
    for label, node in zip(("wide", "scaled", "centred", ""), chain, strict=True):
        node.outputs[0].name = f"{name}_{label}" if label else name
        node.name = f"{node.op_type}:{node.outputs[0].name}"
    chain[-1].outputs[0].shape, chain[-1].outputs[0].dtype = value.shape, ir.DataType.INT8
    first = min((use.node for use in users), key=list(model.graph).index)
    model.graph.insert_before(first, chain)
    for use in users:
        use.node.replace_input_with(use.idx, chain[-1].outputs[0])


def _constant(model: ir.Model, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    value = ir.Value(
        name=name, const_value=tensor, shape=ir.Shape(tensor.numpy().shape), type=ir.TensorType(tensor.dtype)
    )
    model.graph.register_initializer(value)
    return value


def _uint4_tensor(index: np.ndarray, name: str) -> ir.PackedTensor[np.ndarray]:
    """Two indices a byte, low half first, as ONNX lays out UINT4 raw data."""
    flat = index.reshape(-1)
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    packed = (flat[0::2] | (flat[1::2] << 4)).astype(np.uint8)
    return ir.PackedTensor(packed, dtype=ir.DataType.UINT4, shape=ir.Shape(index.shape), name=name)
