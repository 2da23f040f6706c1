"""Bicubic and antialiased resizing of images of known size, as the two products of matrices that it is.

Libraries compute the places of pixels in float32, each in its own way, and part by more than the rounding of
a sum; other modes they agree on.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.quant.trace.sizes import shapes_of

__all__ = ["write_out_resizing"]

_NAMES = ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
_IMAGE_RANK = 4


def write_out_resizing(network: fx.GraphModule) -> None:
    """Replace such calls of ``F.interpolate`` and ``nn.Upsample`` by ``rows @ x @ columns``, in place."""
    for node in list(network.graph.nodes):
        given = _given(network, node)
        if given is None or not (given.get("mode") == "bicubic" or given.get("antialias")):
            continue
        shapes = shapes_of(given["input"])
        if shapes is None or not isinstance(shapes[0], Tensor) or shapes[0].dim() != _IMAGE_RANK:
            continue
        _write(network, node, given, tuple(shapes[0].shape[2:]))


def _given(network: fx.GraphModule, node: fx.Node) -> dict[str, Any] | None:
    if node.op == "call_function" and node.target is F.interpolate:
        return dict(zip(_NAMES, node.args, strict=False)) | dict(node.kwargs)
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if type(module) is not nn.Upsample:
        return None
    return {"input": node.args[0]} | {name: getattr(module, name) for name in _NAMES[1:6]}


def _write(network: fx.GraphModule, node: fx.Node, given: dict[str, Any], image: tuple[int, ...]) -> None:
    rows, columns = (_matrix(given, image, axis) for axis in (0, 1))
    names = [f"{node.name}_rows", f"{node.name}_columns"]
    graph = network.graph
    for name, matrix in zip(names, (rows, columns.t().contiguous()), strict=True):
        network.register_buffer(name, matrix)
    with graph.inserting_before(node):
        left, right = map(graph.get_attr, names)
        resized = graph.call_function(torch.matmul, (left, given["input"]))
        resized = graph.call_function(torch.matmul, (resized, right))
    node.replace_all_uses_with(resized)
    graph.erase_node(node)


def _matrix(given: dict[str, Any], image: tuple[int, ...], axis: int) -> Tensor:
    """(out, in) of one axis: what becomes of each pixel alone."""
    side = image[axis]
    settings = {name: value for name, value in given.items() if name not in ("input", "size", "scale_factor")}
    size, scale = (_of_axis(given.get(name), axis) for name in ("size", "scale_factor"))
    one_axis = {"size": (int(size), side)} if size is not None else {"scale_factor": (float(scale), 1.0)}
    found = F.interpolate(torch.eye(side)[None, None], **one_axis, **settings)
    return found[0, 0]


def _of_axis(value: Any, axis: int) -> Any:
    return value[axis] if isinstance(value, tuple | list) else value
