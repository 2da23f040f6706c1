"""Maxima over an adaptive grid of windows, written as pools of known windows."""

import itertools
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.quant.trace.sizes import shapes_of

__all__ = ["write_out_adaptive_maxima"]

Windows = list[tuple[int, int]]
"""Start and end of each."""


def write_out_adaptive_maxima(network: fx.GraphModule) -> None:
    """Replace ``adaptive_max_pool2d`` by max pools of its windows, in place; exporters do not know it.

    Calls on a tensor of unknown size, or that give indices too, are left alone.
    """
    for node in list(network.graph.nodes):
        wanted = _output_size(network, node)
        shapes = shapes_of(node.all_input_nodes[0]) if wanted is not None else None
        if wanted is None or shapes is None or not isinstance(shapes[0], Tensor):
            continue
        value: fx.Node = node.all_input_nodes[0]
        with network.graph.inserting_before(node):
            for axis, sizes in enumerate(zip(shapes[0].shape[-2:], wanted, strict=True)):
                value = _pooled(network.graph, value, axis - 2, _windows(*sizes))
        value.meta.update(node.meta)
        node.replace_all_uses_with(value)
        network.graph.erase_node(node)


def _output_size(network: fx.GraphModule, node: fx.Node) -> tuple[int | None, int | None] | None:
    """Height and width that a call asks for, None for those of its input; None if it is another call."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        if not isinstance(module, nn.AdaptiveMaxPool2d) or module.return_indices:
            return None
        size: Any = module.output_size
    elif node.op == "call_function" and node.target is F.adaptive_max_pool2d:
        if node.kwargs.get("return_indices", node.args[2] if len(node.args) > 2 else False):
            return None
        size = node.kwargs.get("output_size", node.args[1] if len(node.args) > 1 else None)
    else:
        return None
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return height, width


def _windows(size: int, count: int | None) -> Windows:
    """As torch cuts ``size`` elements into ``count`` windows, which may overlap."""
    count = size if count is None else count
    return [(at * size // count, -(-(at + 1) * size // count)) for at in range(count)]


def _pooled(graph: fx.Graph, value: fx.Node, axis: int, windows: Windows) -> fx.Node:
    """Maxima along one axis: one pool of equal steps where there is one, else a pool for each window."""
    spans = {end - start for start, end in windows}
    steps = {after[0] - before[0] for before, after in itertools.pairwise(windows)}
    if len(spans) == 1 and len(steps) <= 1:
        (span,), step = spans, next(iter(steps), 1)
        if span == step == 1 and len(windows) > 1:
            return value
        return graph.call_function(F.max_pool2d, (value, *_along(axis, span, step)))
    parts = []
    for start, end in windows:
        place: Any = (..., slice(start, end), slice(None)) if axis == -2 else (..., slice(start, end))
        part = graph.call_function(operator.getitem, (value, place))
        parts.append(graph.call_function(F.max_pool2d, (part, *_along(axis, end - start, 1))))
    return graph.call_function(torch.cat, (parts, axis))


def _along(axis: int, span: int, step: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and step of a pool over one axis of the two."""
    return ((span, 1), (step, 1)) if axis == -2 else ((1, span), (1, step))
