"""Operator sets, operators, names and types that TensorRT's ONNX parser can read."""

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from saq_qat_export.lint.nodes import node_label
from saq_qat_export.lint.operators import (
    INTEGER_OPERATORS,
    PLUGIN_DOMAINS,
    QUANTIZATION_DOMAINS,
    STANDARD_DOMAINS,
    SUPPORTED,
)
from saq_qat_export.lint.quantization import HALF_TYPES, QuantizationNode
from saq_qat_export.lint.settings import LintSettings
from saq_qat_export.lint.view import GraphView, Violation

__all__ = ["integer_operators", "interface_and_operators", "is_integer_operator", "opset"]

_OLDEST_PARSED, _NEWEST_PARSED = 9, 24
_PER_CHANNEL, _HALF, _BLOCKED = 13, 19, 21

_IO_TYPES = frozenset({
    ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT8E4M3FN, ir.DataType.INT8,
    ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.BOOL,
})  # fmt: skip  # one value a line is a page


def opset(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT001: the operator set is one that the parser reads and that defines the quantization in use.

    Error, but a warning for sets 9 to 12 that hold nothing newer than per-tensor quantization.
    """
    version = view.opset
    fix = "Export with opset 19 (float16 or float32), or 21 where there are blocked scales or 4-bit codes."
    if not _OLDEST_PARSED <= version <= _NEWEST_PARSED:
        message = (
            f"operator set {version} is outside {_OLDEST_PARSED} to {_NEWEST_PARSED}, which the parser reads."
        )
        yield Violation("model", message, fix)
        return
    for found in view.quantization.values():
        needed, feature = _needs(found)
        if version < needed:
            yield Violation(found.node, f"{feature} need opset {needed}; the model states {version}.", fix)
    if view.quantization and version < _PER_CHANNEL:
        message = f"operator set {version} knows no per-channel quantization."
        yield Violation("model", message, fix, "warning")


def _needs(found: QuantizationNode) -> tuple[int, str]:
    """The first operator set with all that a node uses, and the newest feature among it."""
    if found.stored in (ir.DataType.INT4, ir.DataType.UINT4) or found.blocked:
        return _BLOCKED, "4-bit codes and blocked scales"
    if found.precision in HALF_TYPES or found.stored == ir.DataType.FLOAT8E4M3FN:
        return _HALF, "float16 and bfloat16 scales and 8-bit floats"
    return (_PER_CHANNEL, "per-channel scales") if found.per_channel else (0, "")


def integer_operators(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT012: no operator computes on integers itself."""
    for node in view.order:
        if is_integer_operator(node):
            yield Violation(
                node,
                f"{node.op_type} computes on integers itself; TensorRT reads only QuantizeLinear and "
                "DequantizeLinear around float operators.",
                "Quantize in the QDQ format (onnxruntime.quantization: quant_format=QuantFormat.QDQ).",
            )


def is_integer_operator(node: ir.Node) -> bool:
    """Whether the operator itself computes on integers, as in the QOperator format."""
    return node.op_type in INTEGER_OPERATORS or node.op_type.startswith(("QLinear", "QOrdered"))


def interface_and_operators(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT019: inputs and outputs have types TensorRT knows, names tell things apart, operators are supported.

    Error, but a warning for float64 inputs and outputs, which become float32, and for operators of other
    domains, which need a plugin.
    """
    for kind, values in (("input", view.inputs), ("output", view.graph.outputs)):
        yield from _interface(kind, list(values))
    for node in view.order:
        problem = _operator_problem(node)
        if problem is not None:
            yield problem
    for graph in view.model.graphs():
        yield from _repeated_names(graph)


def _interface(kind: str, values: list[ir.Value]) -> Iterator[Violation]:
    for name, count in Counter(value.name or "" for value in values).items():
        if count > 1 or not name:
            message = f"{count} graph {kind}s are called {name!r}; bindings are found by name."
            yield Violation(name or kind, message, "Give every input and output its own name.")
    for value in values:
        if value.dtype == ir.DataType.DOUBLE:
            message = f"graph {kind} is float64; TensorRT has no such type and takes it for float32."
            yield Violation(value.name or kind, message, "Make it float32.", "warning")
        elif value.dtype is not None and value.dtype not in _IO_TYPES:
            message = f"graph {kind} is {value.dtype}; TensorRT has no such type."
            yield Violation(
                value.name or kind, message, "Use float32, float16, int32, int64, int8, uint8 or bool."
            )


def _operator_problem(node: ir.Node) -> Violation | None:
    if is_integer_operator(node) or node.domain in PLUGIN_DOMAINS:
        return None
    if node.domain in STANDARD_DOMAINS:
        message = f"the parser knows no operator {node.op_type}."
        fix = "Express it by supported operators, or register a TensorRT plugin of that name."
        return None if node.op_type in SUPPORTED else Violation(node, message, fix)
    name = f"{node.domain}.{node.op_type}"
    if node.op_type in SUPPORTED:
        taken = "the parser looks only at its name and takes it for the standard one"
        same = node.domain in QUANTIZATION_DOMAINS and node.op_type in ("QuantizeLinear", "DequantizeLinear")
        fix = "Use the standard operator." if same else "Use the standard operator, or another name."
        return Violation(node, f"{name} is no operator of ONNX; {taken}.", fix, "warning")
    message = f"{name} is no operator of ONNX; the parser needs a plugin called {node.op_type}."
    known = node.domain.startswith("com.microsoft") or node.domain == "ai.onnx.ml"
    fix = "Export without optimizations of ONNX Runtime." if known else "Load that plugin before building."
    return Violation(node, message, fix, None if known else "warning")


def _repeated_names(graph: ir.Graph) -> Iterator[Violation]:
    seen: dict[str, ir.Node] = {}
    for node in graph:
        first = seen.setdefault(node.name, node) if node.name else node
        if first is not node:
            message = (
                f"a {first.op_type} and a {node.op_type} share this node name; layers must differ by name."
            )
            yield Violation(node, message, f"Rename the node that writes {_written(node)}.")


def _written(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), node_label(node))
