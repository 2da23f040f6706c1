"""Reading single nodes and values of an onnx_ir graph without trusting them to be complete."""

import onnx_ir as ir

from saq_qat_export.lint.operators import MOVERS, STANDARD_DOMAINS

__all__ = [
    "consumers",
    "dimensions",
    "integer",
    "is_standard",
    "moves",
    "node_label",
    "operand",
    "result",
    "text",
]


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """Input ``index`` of the node, None if it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def result(node: ir.Node) -> ir.Value | None:
    """First output of the node."""
    return node.outputs[0] if node.outputs else None


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute; ``default`` if it is missing or of another type."""
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None and attribute.type == ir.AttributeType.INT else default


def text(node: ir.Node, name: str, default: str) -> str:
    """A string attribute; ``default`` if it is missing or of another type."""
    attribute = node.attributes.get(name)
    return (
        attribute.as_string()
        if attribute is not None and attribute.type == ir.AttributeType.STRING
        else default
    )


def is_standard(node: ir.Node, *operators: str) -> bool:
    """Whether the node is one of these operators of the standard domain."""
    return node.domain in STANDARD_DOMAINS and node.op_type in operators


def moves(node: ir.Node) -> bool:
    """Whether the first output holds only numbers of the inputs that carry data."""
    if node.op_type == "Resize":
        return is_standard(node, "Resize") and text(node, "mode", "nearest") == "nearest"
    return is_standard(node, *MOVERS)


def consumers(value: ir.Value | None) -> tuple[ir.Node, ...]:
    """Nodes that read the value, in graph order; also those of subgraphs."""
    return tuple(value.consumers()) if value is not None else ()


def dimensions(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Shape with None for dynamic dimensions; None if not even the rank is known."""
    if value is None:
        return None
    shape = value.const_value.shape if value.const_value is not None else value.shape
    return None if shape is None else tuple(size if isinstance(size, int) else None for size in shape)


def node_label(node: ir.Node) -> str:
    """Name of the node; its operator and output where it has no name."""
    written = result(node)
    return node.name or f"{node.op_type} writing {written.name if written is not None else 'nothing'}"
