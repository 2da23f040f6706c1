"""Assignments to a part of a tensor, ``x[:, 1:] = y``: a graph has no parts, so the whole is put together."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["with_part"]


Shapes = tuple[Tensor, Tensor]
"""One tensor for two batch sizes, without values."""


def with_part(whole: Any, shapes: Shapes, index: Any, value: Any, of_value: Shapes | None) -> Any:
    """``whole`` with ``value`` at ``index``, by concatenation.

    Args:
        whole: proxy of the tensor.
        shapes, of_value: of ``whole`` and ``value``; None for a number.
        index: of numbers, slices without steps and an ellipsis.
        value: proxy of a tensor that broadcasts to the part, or a number.

    Raises:
        TypeError: the index is another, or cuts the batch.
    """
    slices, numbered = _slices(shapes, index if isinstance(index, tuple) else (index,))
    part = tuple(tensor[tuple(slices)].shape for tensor in shapes)
    if of_value is None:
        value = torch.full_like(whole[tuple(slices)], value)
    else:
        for axis in reversed(numbered):
            behind = len(part[0]) - 1 - axis
            if len(of_value[0].shape) >= behind:
                value, of_value = value.unsqueeze(-behind - 1), _with_axis(of_value, -behind - 1)
        if part != tuple(tensor.shape for tensor in of_value):
            value = value.expand_as(whole[tuple(slices)])
    return _put(whole, value, slices, [range(size) for size in shapes[0].shape])


def _slices(shapes: tuple[Tensor, Tensor], index: tuple[Any, ...]) -> tuple[list[slice], list[int]]:
    """A slice for every axis, and the axes that were given by a number."""
    first, second = (tuple(tensor.shape) for tensor in shapes)
    if any(part is None or not isinstance(part, int | slice | type(...)) for part in index):
        raise TypeError("a part of a tensor is assigned to by numbers and slices alone")
    missing = len(first) - sum(part is not ... for part in index)
    at = next((i for i, part in enumerate(index) if part is ...), len(index))
    every = (*index[:at], *[slice(None)] * missing, *index[at + 1 :])
    slices, numbered = [], []
    for axis, (part, size) in enumerate(zip(every, first, strict=True)):
        if isinstance(part, int):
            part = slice(part % size, part % size + 1)
            numbered.append(axis)
        if (part.step or 1) != 1 or not all(isinstance(end, int | None) for end in (part.start, part.stop)):
            raise TypeError("slices that are assigned to have no steps, and numbers as bounds")
        start, stop, _ = part.indices(size)
        is_whole = (start, stop) == (0, size)
        if size != second[axis] and not (is_whole and part.stop is None):
            raise TypeError("an assignment to some images of a batch depends on the batch")
        slices.append(slice(None) if is_whole else slice(start, stop))
    return slices, numbered


def _with_axis(shapes: Shapes, axis: int) -> Shapes:
    return shapes[0].unsqueeze(axis), shapes[1].unsqueeze(axis)


def _put(whole: Any, value: Any, slices: list[slice], sizes: list[range]) -> Any:
    """One axis after the other: what lies before the part, the part, and what lies behind it."""
    axis = next((i for i, part in enumerate(slices) if part != slice(None)), None)
    if axis is None:
        return value
    start, stop = slices[axis].start, slices[axis].stop
    inner = [*[slice(None)] * (axis + 1), *slices[axis + 1 :]]
    middle = _put(_cut(whole, axis, start, stop), value, inner, sizes)
    before = [_cut(whole, axis, 0, start)] if start else []
    behind = [_cut(whole, axis, stop, len(sizes[axis]))] if stop < len(sizes[axis]) else []
    return torch.cat([*before, middle, *behind], axis)


def _cut(whole: Any, axis: int, start: int, stop: int) -> Any:
    return whole[(*[slice(None)] * axis, slice(start, stop))]
