"""Bounds of unsigned codes, written so that OpenVINO's kernels compute them at little cost.

The absolute values that are added change no number: what they read is never negative.
"""

import numpy as np
import onnx_ir as ir

from saq_qat_export.graph.passes.names import copy_scope

__all__ = ["bound_before_rounding", "requantize_in_kernels"]


def bound_before_rounding(model: ir.Model) -> None:
    """Put an Abs behind each Clip at zero that bounds what a convolution or a sum writes, in place.

    OpenVINO (2026.4) makes a Clip right before QuantizeLinear a part of it, and then scales, rounds and
    bounds in three steps behind each sum of products. Apart, the Clip is one step and the Abs a cheap one;
    scaling and rounding to uint8 are those of the convolution itself.
    """
    for node in list(model.graph):
        if _is_clip_at_zero(node) and _is_of_kernel(node.inputs[0]) and _reader_is(node, "QuantizeLinear"):
            _insert_behind(model, node)


def requantize_in_kernels(model: ir.Model) -> None:
    """Put an Abs before each Clip at zero that reads codes, directly or through pools, in place.

    OpenVINO (2026.4) runs an Abs of codes with the QuantizeLinear behind it from uint8 to uint8. Without one,
    it converts the codes to float32 in another layout, quantizes these, and converts them back.
    """
    for node in list(model.graph):
        if _is_clip_at_zero(node) and _is_of_codes(node.inputs[0]) and _reader_is(node, "QuantizeLinear"):
            _insert_before(model, node)


def _is_clip_at_zero(node: ir.Node) -> bool:
    low = node.inputs[1] if node.op_type == "Clip" and len(node.inputs) > 1 else None
    bound = None if low is None else ir.convenience.get_const_tensor(low)
    return bound is not None and bool(np.all(bound.numpy() == 0))


def _reader_is(node: ir.Node, op_type: str) -> bool:
    return [use.node.op_type for use in node.outputs[0].uses()] == [op_type]


def _is_of_kernel(value: ir.Value | None) -> bool:
    return _writer(value, through="Relu") in ("Conv", "Add")


def _is_of_codes(value: ir.Value | None) -> bool:
    return _writer(value, through="MaxPool") == "DequantizeLinear"


def _writer(value: ir.Value | None, *, through: str) -> str:
    """Operator that writes a value, behind those of the kind ``through``; empty for inputs."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type == through:
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return "" if node is None else node.op_type


def _insert_behind(model: ir.Model, node: ir.Node) -> None:
    result = node.outputs[0]
    magnitude = _magnitude(node, result)
    result.replace_all_uses_with(magnitude.outputs[0])
    magnitude.replace_input_with(0, result)
    model.graph.insert_after(node, magnitude)


def _insert_before(model: ir.Model, node: ir.Node) -> None:
    source = node.inputs[0]
    if source is not None:
        magnitude = _magnitude(node, source)
        node.replace_input_with(0, magnitude.outputs[0])
        model.graph.insert_before(node, magnitude)


def _magnitude(scope: ir.Node, value: ir.Value) -> ir.Node:
    """An Abs of ``value``, named where ``scope`` is."""
    node = ir.node("Abs", [value])
    node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
    copy_scope(scope, node)
    return node
