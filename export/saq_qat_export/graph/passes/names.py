"""Stable names: every node, value and integer tensor is called after the trained module it comes from."""

import ast
from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir

from saq_qat_export.reference.qdq_graph import QdqGraph
from saq_qat_runtime.operators import RESHAPES

__all__ = ["SCOPES", "code_tensors", "copy_scope", "float_tensors", "name_after_modules"]

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch.onnx notes the modules that a node was traced in."""
_QUANTIZERS = "quantizers."


def name_after_modules(model: ir.Model, products: Sequence[str] = ()) -> None:
    """Rename in place, before metadata is stripped.

    1. The codes of quantizer ``q`` are ``q.codes``. Where codes are clipped, the Clip reads ``q.unclipped``;
       where floats are bounded before they become codes, those are ``q.bounded``, and their absolute values
       ``q.magnitude``; codes that were moved for one reader, ``q.moved``.
    2. A DequantizeLinear of ``q.codes`` writes ``q.values``; of a parameter ``p``, ``p.values``.
    3. A Gemm of codes writes a value named after its layer; a MatMul of two tensors of codes takes its name
       from ``products``, which are in graph order.
    4. Any other node writes a value named after its module, or after its operator where there is none.
    5. Repeated names get ``_1``, ``_2``, ... in graph order; graph inputs and outputs keep theirs.
    """
    fixed = _names_of_products(model, products)
    given = (value.name for value in (*model.graph.inputs, *model.graph.outputs) if value.name)
    taken: Counter[str] = Counter((*given, *fixed.values()))
    for node in model.graph:
        base = _base_name(node)
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = fixed[node] if node in fixed else _unique(base, taken)
        node.name = f"{node.op_type}:{node.outputs[0].name}"


def _names_of_products(model: ir.Model, products: Sequence[str]) -> dict[ir.Node, str]:
    gemms = [node for node in model.graph if node.op_type == "Gemm" and _is_of_codes(node.inputs[0])]
    pairs = [n for n in model.graph if n.op_type == "MatMul" and all(map(_is_of_codes, n.inputs))]
    return {node: _scope(node) for node in gemms if _scope(node)} | dict(zip(pairs, products, strict=True))


def _is_of_codes(value: ir.Value | None) -> bool:
    """Whether a value is dequantized from computed codes, through carriers."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in RESHAPES and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    codes = node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else None
    return codes is not None and codes.producer() is not None


def _unique(base: str, taken: Counter[str]) -> str:
    taken[base] += 1
    return base if taken[base] == 1 else _unique(f"{base}_{taken[base] - 1}", taken)


def _base_name(node: ir.Node) -> str:
    scope = _scope(node)
    if scope.startswith(_QUANTIZERS):
        quantizer = scope.removeprefix(_QUANTIZERS)
        return f"{quantizer}.{_part(node)}"
    if node.op_type == "DequantizeLinear" and node.inputs[0] is not None and node.inputs[0].name:
        return node.inputs[0].name.removesuffix(".codes") + ".values"
    return scope or node.op_type.lower()


def _scope(node: ir.Node) -> str:
    """Dotted path of the module a node was traced in; empty for the network itself."""
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    modules = [str(scope) for scope in scopes[:-1] if scope]
    return modules[-1] if modules else ""


def copy_scope(source: ir.Node | None, node: ir.Node) -> None:
    """Let ``node`` be named as if it had been traced where ``source`` was."""
    if source is not None and SCOPES in source.metadata_props:
        node.metadata_props[SCOPES] = source.metadata_props[SCOPES]


def _part(node: ir.Node) -> str:
    """What a node inside a quantizer writes."""
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node.op_type == "QuantizeLinear":
        clipped = any(use.node.op_type == "Clip" for use in node.outputs[0].uses())
        return "unclipped" if clipped else "codes"
    if node.op_type == "Clip" and source is not None and source.op_type == "QuantizeLinear":
        return "codes"
    if node.op_type == "Abs":
        return "magnitude"
    return "moved" if node.op_type in RESHAPES else "bounded"


def code_tensors(graph: QdqGraph) -> tuple[str, ...]:
    """Names of the tensors that hold the codes of each quantizer, in graph order."""
    written = (n.output[0] for n in graph.nodes if n.op_type in ("QuantizeLinear", "Clip"))
    return tuple(name for name in written if name.endswith(".codes"))


def float_tensors(graph: QdqGraph) -> tuple[str, ...]:
    """Names of floats that products of codes write, because no quantizer alone reads them, in graph order."""
    operands = {"Gemm": 1, "MatMul": 2}
    return tuple(
        node.output[0]
        for node in graph.nodes
        if node.op_type in operands
        and all(map(graph.reads_activation_codes, node.input[: operands[node.op_type]]))
        and graph.quantizer_behind(node.output[0]) is None
    )
