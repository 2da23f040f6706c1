"""Stable names: every node, value and integer tensor is called after the trained module it comes from."""

import ast
from collections import Counter

import onnx_ir as ir

__all__ = ["code_tensors", "name_after_modules"]

_SCOPES = "pkg.torch.onnx.name_scopes"
_QUANTIZERS = "quantizers."


def name_after_modules(model: ir.Model) -> None:
    """Rename in place, before metadata is stripped.

    1. The codes of quantizer ``q`` are ``q.codes``. Where codes are clipped, the Clip reads ``q.unclipped``;
       where floats are bounded before they become codes, those are ``q.bounded``.
    2. A DequantizeLinear of ``q.codes`` writes ``q.values``; of a parameter ``p``, ``p.values``.
    3. Any other node writes a value named after its module, or after its operator where there is none.
    4. Repeated names get ``_1``, ``_2``, ... in graph order; graph inputs and outputs keep theirs.
    """
    taken: Counter[str] = Counter(
        value.name for value in (*model.graph.inputs, *model.graph.outputs) if value.name
    )
    for node in model.graph:
        base = _base_name(node)
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = _unique(base, taken)
        node.name = f"{node.op_type}:{node.outputs[0].name}"


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
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    modules = [str(scope) for scope in scopes[:-1] if scope]
    return modules[-1] if modules else ""


def _part(node: ir.Node) -> str:
    """What a node inside a quantizer writes."""
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node.op_type == "QuantizeLinear":
        clipped = any(use.node.op_type == "Clip" for use in node.outputs[0].uses())
        return "unclipped" if clipped else "codes"
    if node.op_type == "Clip" and source is not None and source.op_type == "QuantizeLinear":
        return "codes"
    return "bounded"


def code_tensors(model: ir.Model) -> list[str]:
    """Names of the tensors that hold the codes of each quantizer, in graph order."""
    return [
        value.name
        for node in model.graph
        for value in node.outputs
        if value.name is not None
        and value.name.endswith(".codes")
        and node.op_type in ("QuantizeLinear", "Clip")
    ]
