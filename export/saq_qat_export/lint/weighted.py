"""Convolutions and matrix products with constant weights: the role of each input, the way of the weights."""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from saq_qat_export.lint.constants import Constants
from saq_qat_export.lint.nodes import dimensions, integer, is_standard, operand
from saq_qat_export.lint.quantization import QuantizationNode
from saq_qat_export.lint.trace import Origin, find_origin
from saq_qat_runtime.operators import PRODUCTS

__all__ = ["WeightPath", "WeightedNode", "find_weighted"]


@dataclass(frozen=True)
class WeightPath:
    """From constant numbers to the weight input of a node.

    Attributes:
        after: nodes between the DequantizeLinear and the weighted node, the last one first.
        dequantize: None where the weights are plain floats.
        before: nodes between the QuantizeLinear, or the constant, and the DequantizeLinear.
        quantize: None where the codes are stored.
        root: the stored constant, as far as it can be followed.
    """

    after: tuple[ir.Node, ...]
    dequantize: QuantizationNode | None
    before: tuple[ir.Node, ...]
    quantize: QuantizationNode | None
    root: ir.Value


@dataclass(frozen=True)
class WeightedNode:
    """One Conv, ConvTranspose, Gemm or MatMul whose weight is a constant.

    ``channel_axis`` is that of the output channels in the weight input.
    """

    node: ir.Node
    data: ir.Value
    weight: ir.Value
    bias: ir.Value | None
    channel_axis: int
    origin: Origin
    path: WeightPath

    @property
    def quantized(self) -> bool:
        """Whether data and weights are both dequantized codes."""
        return self.origin.quantized and self.path.dequantize is not None

    @property
    def is_convolution(self) -> bool:
        return self.node.op_type in ("Conv", "ConvTranspose")

    @property
    def group(self) -> int:
        return max(1, integer(self.node, "group", 1))

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the weight input; None if it is not known."""
        sizes = dimensions(self.weight)
        known = tuple(size for size in sizes or () if size is not None)
        return known if sizes and len(known) == len(sizes) else None

    @property
    def channels(self) -> tuple[int, int] | None:
        """Input and output channels of the whole layer; None if not known."""
        shape = self.shape
        if shape is None or len(shape) < 2:
            return None
        if not self.is_convolution:
            last = len(shape) - 1
            return shape[last if self.channel_axis == last - 1 else last - 1], shape[self.channel_axis]
        first, second = shape[0], shape[1] * self.group
        return (second, first) if self.node.op_type == "Conv" else (first, second)


def find_weighted(
    nodes: Iterable[ir.Node], quantization: dict[ir.Value, QuantizationNode], constants: Constants
) -> tuple[WeightedNode, ...]:
    """Every weighted node, in graph order; products of two activations or two constants are none."""
    found = (_read(node, quantization, constants) for node in nodes if is_standard(node, *PRODUCTS))
    return tuple(node for node in found if node is not None)


def _read(
    node: ir.Node, quantization: dict[ir.Value, QuantizationNode], constants: Constants
) -> WeightedNode | None:
    data, weight = operand(node, 0), operand(node, 1)
    if data is None or weight is None or (data in constants) == (weight in constants):
        return None
    swapped = data in constants
    if swapped and node.op_type != "MatMul":
        return None
    data, weight = (weight, data) if swapped else (data, weight)
    return WeightedNode(
        node=node,
        data=data,
        weight=weight,
        bias=operand(node, 2) if node.op_type != "MatMul" else None,
        channel_axis=_channel_axis(node, weight, swapped),
        origin=find_origin(data, quantization, constants),
        path=_find_path(weight, quantization),
    )


def _channel_axis(node: ir.Node, weight: ir.Value, swapped: bool) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if integer(node, "transB", 0) else 1
    rank = len(dimensions(weight) or (0, 0))
    return max(0, rank - 2 if swapped else rank - 1)


def _find_path(weight: ir.Value, quantization: dict[ir.Value, QuantizationNode]) -> WeightPath:
    after, value = _walk(weight, quantization)
    dequantize = quantization.get(value)
    if dequantize is None or dequantize.quantizes:
        return WeightPath(after, None, (), None, value)
    before, value = _walk(dequantize.data, quantization)
    quantize = quantization.get(value)
    if quantize is None or not quantize.quantizes:
        return WeightPath(after, dequantize, before, None, value)
    return WeightPath(after, dequantize, before, quantize, _walk(quantize.data, quantization)[1])


def _walk(
    value: ir.Value, quantization: dict[ir.Value, QuantizationNode]
) -> tuple[tuple[ir.Node, ...], ir.Value]:
    """Back along the first input that is computed, until a Q or DQ node or a stored constant."""
    passed: list[ir.Node] = []
    while value not in quantization:
        node = value.producer()
        inputs = [source for source in node.inputs if source is not None] if node is not None else []
        if node is None or not inputs or node in passed:
            break
        passed.append(node)
        value = next((source for source in inputs if source.producer() is not None), inputs[0])
    return tuple(passed), value
