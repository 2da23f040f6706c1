"""Weights and biases: both inputs quantized, the right axis, nothing in the way, float biases."""

from collections.abc import Iterator
from math import prod

import onnx_ir as ir

from saq_qat_export.lint.checks.codes import bias_dequantizers
from saq_qat_export.lint.nodes import dimensions, is_standard, operand
from saq_qat_export.lint.quantization import QuantizationNode, data_type
from saq_qat_export.lint.settings import LintSettings
from saq_qat_export.lint.view import GraphView, Violation
from saq_qat_export.lint.weighted import WeightedNode
from saq_qat_runtime.operators import RESHAPES

__all__ = ["both_inputs", "channel_axis", "float_bias", "plain_weights", "static_channels"]


def channel_axis(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT008: per-channel weight scales lie along the output channels and are as many."""
    reported: set[ir.Node] = set()
    for found in view.quantization.values():
        count = (found.scale_shape or (None,))[0]
        sizes = dimensions(found.data)
        if not found.per_channel or view.is_activation(found) or sizes is None or count is None:
            continue
        inside = 0 <= found.axis < len(sizes)
        if not inside or sizes[found.axis] not in (None, count):
            reported.add(found.node)
            length = sizes[found.axis] if inside else "no"
            message = f"{count} scales for axis {found.axis} of {_shape(sizes)}, which has {length} channels."
            yield Violation(
                found.node, message, "Set axis to that of the output channels, one scale for each."
            )
    for item in view.weighted:
        for part in (item.path.quantize, item.path.dequantize):
            if part is not None and part.per_channel and part.node not in reported:
                reported.add(part.node)
                yield from _wrong_axis(item, part)


def _wrong_axis(item: WeightedNode, found: QuantizationNode) -> Iterator[Violation]:
    expected = _stored_axis(item)
    if expected is not None and found.axis != expected:
        yield Violation(
            found.node,
            f"scales lie along axis {found.axis}; the output channels of {item.node.op_type} lie along axis "
            f"{expected}, and TensorRT runs the layer in float.",
            f"Quantize with axis={expected}.",
        )


def _stored_axis(item: WeightedNode) -> int | None:
    """Axis of the output channels in the codes: through Transpose and what only regroups dimensions."""
    axis: int | None = item.channel_axis
    for node in item.path.after:
        axis = _axis_before(node, axis) if axis is not None else None
    return axis


def _axis_before(node: ir.Node, axis: int) -> int | None:
    before, after = dimensions(operand(node, 0)), dimensions(node.outputs[0])
    if is_standard(node, "Transpose"):
        order = node.attributes.get("perm")
        if order is not None and order.type == ir.AttributeType.INTS:
            return list(order.as_ints())[axis] if axis < len(order.as_ints()) else None
        return len(before) - 1 - axis if before is not None else None
    if before is None or after is None or None in before or None in after or axis >= len(after):
        return axis if is_standard(node, "Identity", "Cast", "Mul") else None
    ahead = prod(size or 0 for size in after[:axis])
    places = (
        place
        for place, size in enumerate(before)
        if size == after[axis] and prod(size or 0 for size in before[:place]) == ahead
    )
    return next(places, None)


def _shape(sizes: tuple[int | None, ...]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in sizes)}]"


def both_inputs(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT009: data and weights of a layer are both quantized, or neither.

    Error, but a warning for products with int8 weights and float data, which TensorRT can run weight-only.
    """
    for item in view.weighted:
        dequantize = item.path.dequantize
        if item.origin.quantized and dequantize is None:
            yield Violation(
                item.node,
                "its data is quantized and its weights are plain floats: it runs in float.",
                "Store the weights as int8 with a DequantizeLinear; do not fold them into floats.",
            )
        elif dequantize is not None and not item.origin.quantized:
            if dequantize.stored in (ir.DataType.INT4, ir.DataType.FLOAT4E2M1):
                continue
            producer = item.origin.stopped[0].producer() if item.origin.stopped else None
            source = f"comes from {producer.op_type}" if producer is not None else "is an input of the graph"
            yield Violation(
                item.node,
                f"its weights are quantized and its data is not ({source}): it computes in float.",
                "Put QuantizeLinear and DequantizeLinear directly before its data input.",
                None if item.is_convolution else "warning",
            )


def plain_weights(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT010: only layout changes stand between the DequantizeLinear of the weights and the layer.

    Stored codes must meet their DequantizeLinear first: the builder rejects any other reader of them, even
    Transpose and Reshape.
    """
    for item in view.weighted:
        path = item.path
        if path.dequantize is None:
            continue
        foreign = [node for node in path.after if not is_standard(node, *RESHAPES, "Cast")]
        if foreign:
            yield Violation(
                foreign[-1],
                f"{foreign[-1].op_type} stands between dequantized weights and {item.node.op_type}.",
                "Fold it into the weights' scale, or apply it before quantizing.",
            )
        if path.before and path.quantize is None:
            yield Violation(
                path.before[-1],
                f"{path.before[-1].op_type} reads stored weight codes; only DequantizeLinear may.",
                "Apply it to the stored codes; Transpose and Reshape may also follow the DequantizeLinear.",
            )


def float_bias(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT011: biases are float constants of the layer's type.

    Error, but a warning for biases that are computed, and for int8 codes as bias: both build.
    """
    for found in bias_dequantizers(view):
        builds = found.stored == ir.DataType.INT8
        yield Violation(
            found.node,
            f"a bias is stored as {found.stored or 'integer'} codes; "
            + ("it loses precision for nothing." if builds else "the parser rejects them."),
            "Store the bias in float (onnxruntime.quantization: extra_options QuantizeBias false).",
            "warning" if builds else None,
        )
    for item in view.weighted:
        if item.bias is None or not item.quantized or view.origin(item.bias).dequantized:
            continue
        kind, expected = data_type(item.bias), item.path.dequantize and item.path.dequantize.precision
        if kind is not None and expected is not None and kind != expected:
            yield Violation(
                item.node, f"its bias is {kind}, its weights {expected}.", f"Store the bias as {expected}."
            )
        elif item.bias not in view.constants:
            yield Violation(
                item.node, "its bias is computed at run time.", "Store the bias as an initializer.", "warning"
            )


def static_channels(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT016: channels of a quantized convolution are known when the engine is built."""
    for item in view.weighted:
        sizes = dimensions(item.data)
        if item.quantized and item.is_convolution and sizes is not None and sizes[1:2] == (None,):
            yield Violation(
                item.node,
                "the number of channels of its data is dynamic.",
                "Export with a fixed number of channels; only batch, height and width may vary.",
            )
