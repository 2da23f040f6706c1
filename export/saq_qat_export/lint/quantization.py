"""QuantizeLinear and DequantizeLinear nodes as TensorRT's parser reads them."""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from saq_qat_export.lint.nodes import dimensions, integer, operand, result
from saq_qat_export.lint.operators import QUANTIZATION_DOMAINS

__all__ = [
    "HALF_TYPES",
    "HIGH_PRECISION",
    "QUANTIZED_TYPES",
    "QuantizationNode",
    "data_type",
    "find_quantization",
]

QUANTIZED_TYPES = frozenset(
    {ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1}
)
HALF_TYPES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
HIGH_PRECISION = HALF_TYPES | {ir.DataType.FLOAT}

_FIRST_OPSET_WITH_AXIS = 13


@dataclass(frozen=True)
class QuantizationNode:
    """One QuantizeLinear or DequantizeLinear.

    Attributes:
        quantizes: whether it is a QuantizeLinear.
        scale: None where the node lacks its second input.
        axis: of a one-dimensional scale, counted from the front where the rank is known.
        stored: type of the codes; UINT8 if the node leaves it out, as ONNX says; None if unknown.
        precision: type of the floats, None if unknown.
    """

    node: ir.Node
    quantizes: bool
    data: ir.Value
    output: ir.Value
    scale: ir.Value | None
    zero_point: ir.Value | None
    axis: int
    block_size: int
    stored: ir.DataType | None
    precision: ir.DataType | None

    @property
    def scale_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the scale; None if unknown."""
        return dimensions(self.scale)

    @property
    def per_channel(self) -> bool:
        """Whether the scale holds several numbers along one axis."""
        shape = self.scale_shape
        return shape is not None and len(shape) == 1 and shape[0] != 1

    @property
    def blocked(self) -> bool:
        """Whether the scale has the rank of the data: one number for a block of each row."""
        shape = self.scale_shape
        return shape is not None and (len(shape) > 1 or self.block_size > 0)


def find_quantization(nodes: Iterable[ir.Node], opset: int) -> dict[ir.Value, QuantizationNode]:
    """Every complete QuantizeLinear and DequantizeLinear by its output, in graph order.

    ``nodes`` must be in topological order: the type of codes is handed on from one node to the next.
    """
    found: dict[ir.Value, QuantizationNode] = {}
    for node in nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain in QUANTIZATION_DOMAINS:
            data, output = operand(node, 0), result(node)
            if data is not None and output is not None:
                found[output] = _read(node, data, output, found, opset)
    return found


def _read(
    node: ir.Node, data: ir.Value, output: ir.Value, found: dict[ir.Value, QuantizationNode], opset: int
) -> QuantizationNode:
    quantizes = node.op_type == "QuantizeLinear"
    scale, zero_point = operand(node, 1), operand(node, 2)
    stored: ir.DataType | None = _output_type(node) or data_type(zero_point) or ir.DataType.UINT8
    precision = data_type(data) or data_type(scale)
    if not quantizes:
        source = found.get(data)
        stored_by_source = source.stored if source is not None and source.quantizes else None
        stored = data_type(data) or stored_by_source or data_type(zero_point)
        precision = _output_type(node) or data_type(scale)
    sizes = dimensions(data)
    axis = integer(node, "axis", 1 if opset >= _FIRST_OPSET_WITH_AXIS else 0)
    return QuantizationNode(
        node=node,
        quantizes=quantizes,
        data=data,
        output=output,
        scale=scale,
        zero_point=zero_point,
        axis=axis + len(sizes) if sizes is not None and axis < 0 else axis,
        block_size=integer(node, "block_size", 0),
        stored=stored,
        precision=precision,
    )


def _output_type(node: ir.Node) -> ir.DataType | None:
    number = integer(node, "output_dtype", 0)
    known = {int(kind): kind for kind in ir.DataType}
    return known.get(number) if number else None


def data_type(value: ir.Value | None) -> ir.DataType | None:
    """Element type of a value; None if unknown."""
    if value is None:
        return None
    kind = value.const_value.dtype if value.const_value is not None else value.dtype
    return None if kind is None or kind == ir.DataType.UNDEFINED else kind
