"""Where Q and DQ nodes stand between layers: what lets TensorRT fuse them, and what costs extra kernels."""

from collections.abc import Iterator

import onnx_ir as ir

from saq_qat_export.lint.nodes import consumers, is_standard, operand, result
from saq_qat_export.lint.operators import ACTIVATIONS
from saq_qat_export.lint.settings import LintSettings
from saq_qat_export.lint.trace import downstream, in_epilogue
from saq_qat_export.lint.view import GraphView, Violation
from saq_qat_export.lint.weighted import WeightedNode

__all__ = [
    "activation_before_codes",
    "batch_norm_folded",
    "concat_scales",
    "double_pair",
    "float_branch",
    "integer_output",
    "pad_meets_conv",
    "residual_input",
]

_CLIPPING = ("Clip", "LeakyRelu")
# A bound is a float product of step and scale.
_WHOLE_STEP = 1e-3


def residual_input(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT101: where a convolution's output is added to another tensor, that tensor is dequantized."""
    convolved = _convolution_outputs(view)
    for node in view.nodes("Add"):
        addends = [value for value in node.inputs if value is not None and value not in view.constants]
        if len(addends) < 2 or not any(value in convolved for value in addends):
            continue
        if not any(view.origin(value).quantized for value in addends):
            yield Violation(
                node,
                "adds a convolution's output to a tensor that is not quantized: the convolution then writes "
                "floats, and the sum is not fused into it.",
                "Put QuantizeLinear and DequantizeLinear on the addend that is not the convolution.",
            )


def _convolution_outputs(view: GraphView) -> set[ir.Value]:
    """Outputs of quantized convolutions, or of the BatchNormalization after one."""
    outputs = {result(item.node) for item in view.weighted if item.quantized and item.is_convolution}
    normed = [node for node in view.nodes("BatchNormalization") if operand(node, 0) in outputs]
    return {value for value in (*outputs, *map(result, normed)) if value is not None}


def float_branch(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT102: a layer's output that is quantized does not also go to a sum in float."""
    for item in view.weighted:
        value = _epilogue_end(view, item)
        sums = [node for node in consumers(value) if is_standard(node, "Add")]
        if sums and view.quantizers_of(value):
            yield Violation(
                sums[0],
                f"reads the output of {item.node.op_type} in float where others read its codes: the layer "
                "must write both.",
                "Let the sum read the DequantizeLinear of those codes.",
            )


def _epilogue_end(view: GraphView, item: WeightedNode) -> ir.Value | None:
    """What the layer writes, normalised and activated, as far as a single reader follows another."""
    value = result(item.node)
    for _ in view.order:
        readers = consumers(value)
        if len(readers) != 1 or not is_standard(readers[0], "BatchNormalization", *ACTIVATIONS):
            break
        value = result(readers[0])
    return value


def pad_meets_conv(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT103: a Pad of quantized data, or after a layer, has no pair between it and its convolution."""
    layers = {_epilogue_end(view, item): item for item in view.weighted if item.quantized}
    for node in view.nodes("Pad"):
        data = operand(node, 0)
        if data is None or not (view.origin(data).quantized or data in layers):
            continue
        for found in view.quantizers_of(result(node)):
            readers = (
                reader for pair in view.dequantizers_of(found.output) for reader in consumers(pair.output)
            )
            if any(is_standard(reader, "Conv", "ConvTranspose") for reader in readers):
                yield Violation(
                    found.node,
                    "a quantized pair between Pad and convolution keeps the two from becoming one kernel.",
                    "Quantize before the Pad, and let the convolution read the Pad directly.",
                )


def double_pair(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT104: codes are not dequantized only to be quantized again."""
    for found in view.quantizers:
        source = view.quantization.get(found.data)
        if source is None or source.quantizes or not view.is_activation(found):
            continue
        if view.agree(source.scale, found.scale):
            message, fix = (
                "codes are dequantized and quantized again at the same scale.",
                "Remove this pair.",
            )
        else:
            message = "codes are dequantized and quantized again at another scale, which costs a kernel."
            fix = "Let the readers share one scale if accuracy allows."
        yield Violation(found.node, message, fix)


def concat_scales(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT107: what is concatenated has one scale.

    Warning, but an error where a layer with quantized weights reads the Concat directly: with two scales in
    its data, it runs in float.
    """
    direct = {node for item in view.weighted if item.quantized for node in item.origin.through}
    for node in view.nodes("Concat"):
        pairs = [view.quantization.get(value) for value in node.inputs if value is not None]
        scales = [pair.scale for pair in pairs if pair is not None and not pair.quantizes]
        if any(view.agree(scales[0], scale) is False for scale in scales[1:]):
            float_layer = node in direct
            yield Violation(
                node,
                "its inputs are dequantized with different scales: "
                + (
                    "the layer that reads it runs in float." if float_layer else "they are requantized first."
                ),
                "Let all inputs of the Concat share one scale"
                + (", or quantize what it writes." if float_layer else "."),
                "error" if float_layer else None,
            )


def integer_output(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT108: pools, sums and products of dequantized data are quantized again."""
    for node in view.nodes("Add", "AveragePool", "GlobalAveragePool", "Mul"):
        data = [value for value in node.inputs if value is not None and value not in view.constants]
        if not data or not all(view.origin(value).quantized for value in data):
            continue
        readers = (view.written_by(reader) for reader in downstream(result(node), in_epilogue))
        if not any(found is not None and found.quantizes for found in readers):
            yield Violation(
                node,
                f"{node.op_type} reads dequantized data, and nothing quantizes what it writes: it is float.",
                "Quantize its output too, or leave its inputs in float.",
            )


def batch_norm_folded(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT112: no BatchNormalization follows a quantized layer, and no pair stands before its activation."""
    for item in view.weighted:
        if not item.quantized:
            continue
        for node in consumers(result(item.node)):
            if is_standard(node, "BatchNormalization"):
                message = f"follows a quantized {item.node.op_type}; training did not see the folded weights."
                yield Violation(node, message, "Fold it into weights and bias before they are quantized.")
        others = ACTIVATIONS - set(_CLIPPING)
        for node in _read_after_pair(view, item, "BatchNormalization", *others):
            message = f"a quantized pair stands between {item.node.op_type} and its {node.op_type}."
            yield Violation(node, message, f"Quantize after the {node.op_type}.")


def activation_before_codes(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT113: Clip, ReLU6 and LeakyRelu after a quantized layer come before the codes, not after them."""
    for item in view.weighted:
        for node in _read_after_pair(view, item, *_CLIPPING) if item.quantized else ():
            if _bounds_narrower_codes(view, node):
                continue
            yield Violation(
                node,
                f"{node.op_type} bounds what {item.node.op_type} wrote only after it was quantized: codes "
                "are spent on numbers that are cut off, and the layer ends without its activation.",
                f"Put the QuantizeLinear after the {node.op_type}.",
            )


def _bounds_narrower_codes(view: GraphView, node: ir.Node) -> bool:
    """Whether a Clip is no activation but the range of a narrower grid: both signs, whole steps."""
    readers = view.quantizers_of(result(node))
    bounds = [view.array(value) for value in node.inputs[1:3]]
    scale = view.array(readers[0].scale) if readers else None
    if scale is None or len(bounds) < 2 or any(bound is None for bound in bounds) or scale.size != 1:
        return False
    low, high = (float((bound / scale).reshape(-1)[0]) for bound in bounds if bound is not None)
    return low < 0 < high and all(abs(step - round(step)) < _WHOLE_STEP for step in (low, high))


def _read_after_pair(view: GraphView, item: WeightedNode, *operators: str) -> Iterator[ir.Node]:
    """Nodes with these operators that read the layer's output only through a quantized pair."""
    for found in view.quantizers_of(result(item.node)):
        for pair in view.dequantizers_of(found.output):
            yield from (node for node in consumers(pair.output) if is_standard(node, *operators))
