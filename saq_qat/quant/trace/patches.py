"""Patches cut out of an image and put together again, written with operations that every target has."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.quant.trace.sizes import shapes_of

__all__ = ["write_out_patches"]

_UNFOLD = ("input", "kernel_size", "dilation", "padding", "stride")
_FOLD = ("input", "output_size", "kernel_size", "dilation", "padding", "stride")
_DEFAULTS: dict[str, Any] = {"dilation": 1, "padding": 0, "stride": 1}

Pair = tuple[int, int]


def write_out_patches(network: fx.GraphModule) -> None:
    """Replace ``unfold`` by reshapes or slices, and ``fold`` by a transposed convolution, in place.

    Exporters write them with ranges of indices, which no bundle may hold (unfold), or with an operation that
    TensorRT lacks (fold). Calls on a tensor of unknown size are left alone.
    """
    for node in list(network.graph.nodes):
        found = _settings(network, node)
        if found is None:
            continue
        write, settings = found
        shapes = shapes_of(settings["input"])
        if shapes is None or not isinstance(shapes[0], Tensor):
            continue
        with network.graph.inserting_before(node):
            written = write(network, node, settings, shapes[0].shape)
        if written is not None:
            written.meta.update(node.meta)
            node.replace_all_uses_with(written)
            network.graph.erase_node(node)


Write = Callable[[fx.GraphModule, fx.Node, dict[str, Any], torch.Size], fx.Node | None]


def _settings(network: fx.GraphModule, node: fx.Node) -> tuple[Write, dict[str, Any]] | None:
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        if type(module) not in (nn.Unfold, nn.Fold):
            return None
        names = _UNFOLD if isinstance(module, nn.Unfold) else _FOLD
        settings = {name: getattr(module, name) for name in names[1:]} | {"input": node.args[0]}
    elif node.op == "call_function" and node.target in (F.unfold, F.fold):
        names = _UNFOLD if node.target is F.unfold else _FOLD
        settings = _DEFAULTS | dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    else:
        return None
    pairs = {name: value if name == "input" else _pair(value) for name, value in settings.items()}
    return (_unfold if names is _UNFOLD else _fold), pairs


def _pair(value: Any) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _unfold(
    network: fx.GraphModule, node: fx.Node, given: dict[str, Any], size: torch.Size
) -> fx.Node | None:
    """(N, C, H, W) to (N, C * kH * kW, L)."""
    if len(size) != 4:
        return None
    graph, (_, channels, *image) = network.graph, size
    kernel, stride, padding = given["kernel_size"], given["stride"], given["padding"]
    spans = [d * (k - 1) + 1 for d, k in zip(given["dilation"], kernel, strict=True)]
    counts = [(i + 2 * p - e) // s + 1 for i, p, e, s in zip(image, padding, spans, stride, strict=True)]
    shape = (-1, channels * kernel[0] * kernel[1], counts[0] * counts[1])
    covers = all(i == c * k for i, c, k in zip(image, counts, kernel, strict=True))
    if kernel == stride and spans == list(kernel) and not any(padding) and covers:
        parts = (given["input"], -1, channels, counts[0], kernel[0], counts[1], kernel[1])
        apart = graph.call_method("permute", (graph.call_method("reshape", parts), 0, 1, 3, 5, 2, 4))
        return graph.call_method("reshape", (apart, *shape))
    source = given["input"]
    if any(padding):
        edges = (padding[1], padding[1], padding[0], padding[0])
        source = graph.call_function(F.pad, (source, edges))
    rows, columns = (range(0, k * d, d) for k, d in zip(kernel, given["dilation"], strict=True))
    offsets = [(row, column) for row in rows for column in columns]
    every = slice(None)
    pieces = [
        graph.call_function(operator.getitem, (source, (every, every, *_every(offset, stride, counts))))
        for offset in offsets
    ]
    return graph.call_method("reshape", (graph.call_function(torch.stack, (pieces, 2)), *shape))


def _every(offset: Pair, stride: Pair, counts: list[int]) -> list[slice]:
    steps = zip(offset, stride, counts, strict=True)
    return [slice(first, first + step * (count - 1) + 1, step) for first, step, count in steps]


def _fold(network: fx.GraphModule, node: fx.Node, given: dict[str, Any], size: torch.Size) -> fx.Node | None:
    """(N, C * kH * kW, L) to (N, C, H, W): sums where patches overlap."""
    if len(size) != 3:
        return None
    kernel, stride, padding, dilation = (given[n] for n in ("kernel_size", "stride", "padding", "dilation"))
    area = kernel[0] * kernel[1]
    channels = size[1] // area
    sides = list(zip(given["output_size"], padding, dilation, kernel, stride, strict=True))
    counts = [(o + 2 * p - d * (k - 1) - 1) // s + 1 for o, p, d, k, s in sides]
    rest = [(o + 2 * p - d * (k - 1) - 1) % s for o, p, d, k, s in sides]
    name = f"{node.name}_places"
    network.register_buffer(name, torch.eye(area).reshape(area, 1, *kernel).repeat(channels, 1, 1, 1))
    graph = network.graph
    patches = graph.call_method("reshape", (given["input"], -1, channels * area, *counts))
    arguments = (patches, graph.get_attr(name), None, stride, padding, tuple(rest), channels, dilation)
    return graph.call_function(F.conv_transpose2d, arguments)
