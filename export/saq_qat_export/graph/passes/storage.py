"""Codes that are stored as int8 behind a kernel that writes uint8."""

import numpy as np
import onnx_ir as ir

from saq_qat_runtime.operators import RESHAPES

__all__ = ["store_uint8_before_int8"]

_KERNELS = frozenset({"Gemm", "MatMul"})
_ZERO_POINT = 128


def store_uint8_before_int8(model: ir.Model) -> None:
    """Quantize what a product hands to int8 codes to uint8 first, at the same scale, in place.

    ONNX Runtime's product of uint8 codes writes uint8; before a QuantizeLinear to int8 it would stay float.
    The same 256 codes have the zero point 128 there, so none changes.
    """
    for node in list(model.graph):
        zero_point = node.inputs[2] if node.op_type == "QuantizeLinear" and len(node.inputs) > 2 else None
        if zero_point is None or zero_point.dtype != ir.DataType.INT8:
            continue
        value = _kernel_result(node.inputs[0])
        if value is not None:
            _store(model, value, node)


def _kernel_result(value: ir.Value | None) -> ir.Value | None:
    """What a product writes for one reader alone, found through carriers; None for anything else."""
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    producer = value.producer()
    if producer is None or producer.op_type in _KERNELS:
        return None if producer is None else value
    return _kernel_result(producer.inputs[0]) if producer.op_type in RESHAPES else None


def _store(model: ir.Model, value: ir.Value, quantize: ir.Node) -> None:
    (use,), scale, producer = value.uses(), quantize.inputs[1], value.producer()
    zero_point = _zero_point(model)
    stored = ir.node("QuantizeLinear", [value, scale, zero_point])
    floats = ir.node("DequantizeLinear", [stored.outputs[0], scale, zero_point])
    for node, name, dtype in (
        (stored, f"{value.name}.uint8", ir.DataType.UINT8),
        (floats, f"{value.name}.uint8.values", ir.DataType.FLOAT),
    ):
        node.outputs[0].name, node.name = name, f"{node.op_type}:{name}"
        node.outputs[0].shape, node.outputs[0].type = value.shape, ir.TensorType(dtype)
    use.node.replace_input_with(use.idx, floats.outputs[0])
    if producer is not None:
        model.graph.insert_after(producer, [stored, floats])


def _zero_point(model: ir.Model) -> ir.Value:
    name = f"uint8_{_ZERO_POINT}"
    if name not in model.graph.initializers:
        tensor = ir.tensor(np.array(_ZERO_POINT, np.uint8), name=name)
        value = ir.Value(
            name=name, const_value=tensor, shape=ir.Shape(()), type=ir.TensorType(ir.DataType.UINT8)
        )
        model.graph.register_initializer(value)
    return model.graph.initializers[name]
