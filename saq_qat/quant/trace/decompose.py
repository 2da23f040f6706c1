"""Attention in one call, and sums of products in Einstein's notation, as plain products of two tensors."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from saq_qat.quant.trace.rewrite import arguments_of
from saq_qat.quant.trace.sizes import shapes_of

__all__ = ["decompose_products", "masked_scores", "scaled_query"]


def scaled_query(query: Tensor) -> Tensor:
    """The query (..., T, D) times D^-1/2."""
    return query * cast(float, query.size(-1) ** -0.5)


def masked_scores(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores (..., T, S) under a mask that broadcasts to them: False hides, numbers are added."""
    if mask.dtype == torch.bool:
        return scores.masked_fill(mask.logical_not(), float("-inf"))
    return scores + mask


def decompose_products(network: fx.GraphModule) -> None:
    """Write ``F.scaled_dot_product_attention``, and ``torch.einsum`` where it is one, as ``torch.matmul``.

    In place. Causal and grouped attention, and other sums, stay as they are: float operations.
    """
    for node in list(network.graph.nodes):
        if node.op == "call_function":
            with network.graph.inserting_before(node):
                product = _attention(network, node) or _einsum(network.graph, node)
            if product is not None:
                node.replace_all_uses_with(product)
                network.graph.erase_node(node)


def _attention(network: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    if node.target is not F.scaled_dot_product_attention:
        return None
    found = arguments_of(node)
    if found.get("is_causal") or found.get("enable_gqa"):
        return None
    graph = network.graph
    scale = found.get("scale")
    scale = _default_scale(found["query"]) if scale is None else scale
    scaling = (scaled_query, (found["query"],)) if scale is None else (torch.mul, (found["query"], scale))
    query = graph.call_function(*scaling)
    key = graph.call_method("transpose", (found["key"], -2, -1))
    scores = graph.call_function(torch.matmul, (query, key))
    if found.get("attn_mask") is not None:
        scores = graph.call_function(masked_scores, (scores, found["attn_mask"]))
    weights = graph.call_function(F.softmax, (scores, -1))
    if hasattr(network, f"{node.name}_dropout"):
        weights = graph.call_module(f"{node.name}_dropout", (weights,))
    return graph.call_function(torch.matmul, (weights, found["value"]))


def _default_scale(query: fx.Node) -> float | None:
    """D^-1/2, if the query's size is known."""
    features = {tensor.shape[-1] for tensor in shapes_of(query) or ()}
    return float(features.pop() ** -0.5) if len(features) == 1 else None


def _einsum(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    if node.target is not torch.einsum or len(node.args) != 3:
        return None
    equation, first, second = node.args
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return None
    orders = _product_orders(str(equation).replace(" ", ""))
    if orders is None or "get_attr" in (first.op, second.op):
        return None
    left, right, result = orders
    product = graph.call_function(
        torch.matmul, (_ordered(graph, first, left), _ordered(graph, second, right))
    )
    return _ordered(graph, product, result)


def _product_orders(equation: str) -> tuple[tuple[int, ...], ...] | None:
    """Axes of both factors as (batch, rows, inner) and (batch, inner, columns), and of the result as asked.

    None if the equation is no matrix product with one axis of each kind beside those of the batch.
    """
    factors, arrow, wanted = equation.partition("->")
    terms = factors.split(",")
    if not arrow or len(terms) != 2 or not all(map(str.isalpha, (*terms, wanted))):
        return None
    first, second = terms
    batch = [axis for axis in wanted if axis in first and axis in second]
    rows, columns = (
        [axis for axis in wanted if axis in a and axis not in b]
        for a, b in ((first, second), (second, first))
    )
    inner = [axis for axis in first if axis in second and axis not in wanted]
    orders = (batch + rows + inner, batch + inner + columns, batch + rows + columns)
    sorted_terms = [sorted(term) for term in (first, second, wanted)]
    if len(rows) != 1 or len(columns) != 1 or len(inner) != 1 or [*map(sorted, orders)] != sorted_terms:
        return None
    moved = (tuple(term.index(axis) for axis in order) for term, order in zip(terms, orders[:2], strict=True))
    return (*moved, tuple(orders[2].index(axis) for axis in wanted))


def _ordered(graph: fx.Graph, node: fx.Node, axes: tuple[int, ...]) -> fx.Node:
    return node if axes == tuple(range(len(axes))) else graph.call_method("permute", (node, axes))
