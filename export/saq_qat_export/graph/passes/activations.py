"""Bounds behind linear layers that write floats, as ONNX Runtime does not take them for a part of these."""

import numpy as np
import onnx_ir as ir

from saq_qat_export.graph.passes.names import copy_scope

__all__ = ["keep_bounds_apart"]

_ZERO = "zero"


def keep_bounds_apart(model: ir.Model) -> None:
    """Write a Relu or Clip right behind a Gemm of codes as maximum and minimum, in place.

    ONNX Runtime fuses Gemm and Relu into a float FusedGemm before it looks for integer kernels
    (GemmActivationFusion), and makes no integer kernel of a Gemm before a Clip. Maximum and minimum give
    the same numbers, and the Gemm becomes an integer kernel.
    """
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type in ("Relu", "Clip") else None
        gemm = None if source is None else source.producer()
        if gemm is None or gemm.op_type != "Gemm" or not _reads_codes(gemm):
            continue
        if node.op_type == "Relu":
            node.op_type = "Max"
            node.resize_inputs(2)
            node.replace_input_with(1, _zero(model))
        elif len(node.inputs) > 2 and None not in node.inputs:
            _split(model, node)


def _split(model: ir.Model, clip: ir.Node) -> None:
    """``min(max(x, low), high)``."""
    value, low, high = clip.inputs[:3]
    lower = ir.node("Max", [value, low])
    result = clip.outputs[0]
    lower.outputs[0].shape, lower.outputs[0].type = result.shape, result.type
    copy_scope(clip, lower)
    model.graph.insert_before(clip, lower)
    clip.op_type = "Min"
    clip.replace_input_with(0, lower.outputs[0])
    clip.replace_input_with(1, high)
    clip.resize_inputs(2)


def _reads_codes(gemm: ir.Node) -> bool:
    factors = [None if value is None else value.producer() for value in gemm.inputs[:2]]
    return all(node is not None and node.op_type == "DequantizeLinear" for node in factors)


def _zero(model: ir.Model) -> ir.Value:
    """A float32 0 that all of them share."""
    if _ZERO not in model.graph.initializers:
        tensor = ir.tensor(np.zeros((), np.float32), name=_ZERO)
        shape, kind = ir.Shape(()), ir.TensorType(ir.DataType.FLOAT)
        model.graph.register_initializer(ir.Value(name=_ZERO, const_value=tensor, shape=shape, type=kind))
    return model.graph.initializers[_ZERO]
