"""Functions that exporters write with control flow, or with numbers of their own, spelled by plain ones."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from saq_qat.quant.trace.operations import called_name
from saq_qat.quant.trace.sizes import shapes_of

__all__ = ["respell"]

_STACKS = {torch.hstack: 1, torch.vstack: 0, torch.dstack: 2}
"""The axis that each joins, of tensors that have it."""
_IMAGE = 4


def respell(network: fx.GraphModule) -> None:
    """Replace, in place, where sizes are known.

    ``hstack`` and its kin by ``cat``; ``repeat`` over the batch of what has no batch by ``expand``; a grid of
    ``affine_grid`` over images by the sum of the transformation's columns times coordinates.
    """
    for node in list(network.graph.nodes):
        with network.graph.inserting_before(node):
            written = _joined(network.graph, node) or _spread(network.graph, node) or _grid(network, node)
        if written is not None:
            written.meta.update(node.meta)
            node.replace_all_uses_with(written)
            network.graph.erase_node(node)


def _joined(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    function: Any = node.target
    if node.op != "call_function" or function not in _STACKS:
        return None
    tensors: Any = node.args[0] if node.args else node.kwargs["tensors"]
    shapes = _shape(tensors) if isinstance(tensors, fx.Node) else [_shape(tensor) for tensor in tensors]
    if not isinstance(shapes, list | tuple):
        return None
    ranks = {shape.dim() if isinstance(shape, Tensor) else 0 for shape in shapes}
    axis = _STACKS[function]
    return graph.call_function(torch.cat, (tensors, axis)) if min(ranks, default=0) > max(axis, 1) else None


def _shape(term: Any) -> Any:
    """Of a value for the first of two batches; None if nobody knows."""
    return (shapes_of(term) or (None,))[0] if isinstance(term, fx.Node) else None


def _spread(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    if node.op != "call_method" or called_name(node) != "repeat":
        return None
    given = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], list | tuple) else node.args[1:]
    sizes: Any = tuple(given) if isinstance(given, list | tuple) else ()
    shape = _shape(node.args[0])
    if not sizes or not isinstance(sizes[0], fx.Node) or any(size != 1 for size in sizes[1:]):
        return None
    if not isinstance(shape, Tensor) or shape.dim() != len(sizes) or shape.shape[0] != 1:
        return None
    return graph.call_method("expand", (node.args[0], sizes[0], *[-1] * (len(sizes) - 1)))


def _grid(network: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    if node.op != "call_function" or node.target is not F.affine_grid:
        return None
    names = ("theta", "size", "align_corners")
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    size = given["size"]
    if (
        not isinstance(size, list | tuple)
        or len(size) != _IMAGE
        or not all(isinstance(s, int) for s in size[2:])
    ):
        return None
    graph, (height, width) = network.graph, size[2:]
    same = F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], bool(given.get("align_corners")))
    written: fx.Node | None = None
    for axis, coordinates in enumerate((same[..., :1], same[..., 1:], None)):
        column = graph.call_function(torch.select, (given["theta"], 2, axis))
        term = graph.call_method("reshape", (column, (-1, 1, 1, 2)))
        if coordinates is not None:
            name = f"{node.name}_coordinates_{axis}"
            network.register_buffer(name, coordinates.contiguous())
            term = graph.call_function(torch.mul, (graph.get_attr(name), term))
        written = term if written is None else graph.call_function(torch.add, (written, term))
    return written
