"""What the commonest operations make of sizes, so that most networks are traced without torch's fake tensors.

Those know every operation, but to import them takes longer than to trace a convolutional network, and so do
most kernels of the meta device. A rule answers for contiguous floats alone; the rest is left to them.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saq_qat.quant.trace.operations import BOUNDED, DROPOUT, RESHAPING

__all__ = ["META", "Rule", "size_rule"]

META = torch.device("meta")
"""Of tensors without values."""

Rule = Callable[..., Any]
"""From a node's arguments, tensors on the meta device, to its result; NotImplemented, or any error, where it
cannot tell."""

_IMAGE_RANK = 4
_KEEPING = (
    *BOUNDED.modules,
    *DROPOUT.modules,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.LayerNorm,
    nn.ReLU,
    nn.Sigmoid,
)
_KEEPING_CALLS = frozenset(
    {*BOUNDED.functions, F.dropout, F.hardsigmoid, F.relu, F.relu6, torch.relu, torch.sigmoid}
)
_ELEMENTWISE = frozenset(
    {operator.add, operator.iadd, operator.mul, operator.imul, operator.sub, torch.add, torch.mul}
)
_IN_PLACE = frozenset({operator.iadd, operator.imul})
# Views, and what reads sizes: written in C++ for the meta device too.
_VIEWS = frozenset({*RESHAPING.functions, torch.chunk, torch.split, torch.unbind})
_METHODS = frozenset({*RESHAPING.methods, "chunk", "dim", "expand", "numel", "size", "split", "unbind"})
_ATTRIBUTES = frozenset({"dtype", "ndim", "shape"})
_OF_NUMBERS = frozenset({"_operator", "builtins", "math"})


def size_rule(root: nn.Module, node: fx.Node) -> Rule:
    """How to compute what ``node`` gives.

    Args:
        root: the network, whose layers the node may call.
    """
    name = str(node.target)
    if node.op == "call_module":
        return _of_layer(root.get_submodule(name))
    if node.op == "call_method":
        return _method(name) if name in _METHODS else _unknown
    return _of_function(node.target) if node.op == "call_function" else _unknown


def _unknown(*_: Any, **__: Any) -> Any:
    return NotImplemented


def _of_layer(layer: nn.Module) -> Rule:
    """Of torch's own layers; a BatchNorm of others is one too."""
    if isinstance(layer, _BatchNorm):
        return _normalised
    if not type(layer).forward.__module__.startswith("torch.nn.modules.") or "forward" in vars(layer):
        return _unknown
    if isinstance(layer, _KEEPING):
        return _kept
    return _LAYERS.get(type(layer), lambda _: _unknown)(layer)


def _of_function(function: Any) -> Rule:
    if function in _KEEPING_CALLS:
        return _kept
    if function in _ELEMENTWISE:
        return lambda a, b: _elementwise(function, a, b)
    if function in _VIEWS:
        return _view(function)
    if getattr(function, "__module__", None) in _OF_NUMBERS and function not in _FUNCTIONS:
        return _of_numbers(function)
    return _FUNCTIONS.get(function, _unknown)


def _of_numbers(function: Callable[..., Any]) -> Rule:
    def rule(*terms: Any) -> Any:
        return function(*terms) if all(isinstance(term, int | float) for term in terms) else NotImplemented

    return rule


def _method(name: str) -> Rule:
    return _view(lambda tensor, *terms, **named: getattr(tensor, name)(*terms, **named))


def _view(function: Callable[..., Any]) -> Rule:
    def rule(tensor: Any, *terms: Any, **named: Any) -> Any:
        return function(tensor, *terms, **named) if isinstance(tensor, Tensor) else NotImplemented

    return rule


def _part(whole: Any, index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, int | slice | type(...) | type(None)) for part in parts):
        return NotImplemented
    return whole[index]


def _made(like: Tensor, shape: Sequence[int]) -> Any:
    return torch.empty(tuple(shape), dtype=like.dtype, device=META) if min(shape) > 0 else NotImplemented


def _is_plain(value: object) -> bool:
    """Contiguous floats, of which kernels make contiguous floats."""
    return (
        isinstance(value, Tensor) and value.is_floating_point() and value.is_contiguous() and value.dim() > 0
    )


def _is_image(value: object) -> bool:
    return isinstance(value, Tensor) and _is_plain(value) and value.dim() == _IMAGE_RANK


def _kept(x: Any, *_: Any, **__: Any) -> Any:
    return _made(x, x.shape) if _is_plain(x) else NotImplemented


def _normalised(x: Tensor) -> Tensor:
    """By a BatchNorm, in any layout: torch takes one apart, which takes half the time of a trace."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=META)


def _elementwise(function: Any, *terms: Any) -> Any:
    """Of two tensors of one type, or of one and a number; of numbers, what it is."""
    tensors = [term for term in terms if _is_plain(term)]
    numbers = [term for term in terms if isinstance(term, int | float)]
    if len(numbers) == len(terms):
        return function(*terms)
    if len(tensors) + len(numbers) < len(terms) or len({tensor.dtype for tensor in tensors}) > 1:
        return NotImplemented
    shape = np.broadcast_shapes(*(tuple(tensor.shape) for tensor in tensors))
    keeps_first = function not in _IN_PLACE or shape == getattr(terms[0], "shape", None)
    return _made(tensors[0], shape) if keeps_first else NotImplemented


def _concatenated(tensors: Any, dim: int = 0) -> Any:
    if not all(map(_is_plain, tensors)) or len({(tensor.dtype, tensor.dim()) for tensor in tensors}) != 1:
        return NotImplemented
    first = tensors[0]
    axis = range(first.dim())[dim]
    others = {tuple(size for at, size in enumerate(t.shape) if at != axis) for t in tensors}
    if len(others) != 1:
        return NotImplemented
    shape = list(first.shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
    return _made(first, shape)


def _projected(layer: nn.Linear) -> Rule:
    def rule(x: Any) -> Any:
        if not _is_plain(x) or x.dtype != layer.weight.dtype or x.shape[-1] != layer.in_features:
            return NotImplemented
        return _made(x, (*x.shape[:-1], layer.out_features))

    return rule


def _convolved(layer: nn.Conv2d) -> Rule:
    def rule(x: Any) -> Any:
        if not _is_image(x) or x.dtype != layer.weight.dtype or x.shape[1] != layer.in_channels:
            return NotImplemented
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            return NotImplemented
        moves = zip(layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True)
        sides = [_places(size, *move) for size, move in zip(x.shape[2:], moves, strict=True)]
        return _made(x, (len(x), layer.out_channels, *sides))

    return rule


def _pooled(layer: nn.AvgPool2d | nn.MaxPool2d) -> Rule:
    def rule(x: Any) -> Any:
        if not _is_image(x) or getattr(layer, "return_indices", False):
            return NotImplemented
        settings = (layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1))
        moves = zip(*(each if isinstance(each, tuple) else (each, each) for each in settings), strict=True)
        sides = [
            _places(size, *move, round_up=layer.ceil_mode)
            for size, move in zip(x.shape[2:], moves, strict=True)
        ]
        return _made(x, (*x.shape[:2], *sides))

    return rule


def _places(
    size: int, kernel: int, stride: int, padding: int, dilation: int, *, round_up: bool = False
) -> int:
    """How many places a window takes; rounded up, the last starts before the padding behind the image."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if span < 0:
        return 0
    count = (span + (stride - 1 if round_up else 0)) // stride + 1
    return count - 1 if round_up and (count - 1) * stride >= size + padding else count


def _flattened(layer: nn.Flatten) -> Rule:
    return lambda x: torch.flatten(x, layer.start_dim, layer.end_dim)


def _attribute(value: Any, name: str) -> Any:
    return getattr(value, name) if name in _ATTRIBUTES else NotImplemented


def _averaged(x: Any, output_size: Any) -> Any:
    if not _is_image(x):
        return NotImplemented
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    sides = [size if given is None else given for size, given in zip(x.shape[2:], wanted, strict=True)]
    return _made(x, (*x.shape[:2], *sides))


_LAYERS: dict[type[nn.Module], Callable[[Any], Rule]] = {
    nn.AdaptiveAvgPool2d: lambda layer: lambda x: _averaged(x, layer.output_size),
    nn.AvgPool2d: _pooled,
    nn.Conv2d: _convolved,
    nn.Flatten: _flattened,
    nn.Linear: _projected,
    nn.MaxPool2d: _pooled,
}
_FUNCTIONS: dict[Any, Rule] = {
    F.adaptive_avg_pool2d: _averaged,
    getattr: _attribute,
    operator.getitem: _part,
    torch.cat: _concatenated,
    torch.concat: _concatenated,
}
