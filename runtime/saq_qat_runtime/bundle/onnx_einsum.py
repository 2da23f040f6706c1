"""The shape of what Einsum writes, and what an engine computes on the way there: products of two tensors at a
time, from the left.

Source: the operator's definition, version 12 (https://onnx.ai/onnx/operators).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.onnx_call import BATCH, Call, Shape

__all__ = ["between", "einsum", "products"]

_TERM = re.compile(r"([A-Za-z]*+)(?:(\.\.\.)([A-Za-z]*+))?")

_LARGEST_COUNT = 16
"""Tensors that one node may multiply: networks multiply two or three."""


@dataclass(frozen=True)
class _Equation:
    """Axes by their letters; those that dots stand for are called by their place from the last.

    terms: axes of each input. written: axes of the result. sizes: of each axis.
    """

    terms: tuple[tuple[str, ...], ...]
    written: tuple[str, ...]
    sizes: dict[str, int]

    def size(self, axes: set[str]) -> int:
        return prod(self.sizes[axis] for axis in axes)


def einsum(call: Call) -> Shape:
    equation = _read(call)
    return tuple(equation.sizes[axis] for axis in equation.written)


def between(call: Call) -> int:
    """Bytes of each input in another order, and of the product of the first two, the first three, ..."""
    equation = _read(call)
    found = [equation.size(set(term)) for term in equation.terms]
    found += [equation.size(kept) for _, kept in _steps(equation)]
    return _together(found) * call.tensor(0).width


def products(call: Call) -> int:
    """Multiply-adds of all steps."""
    equation = _read(call)
    return _together([equation.size(met) for met, _ in _steps(equation)])


def _steps(equation: _Equation) -> Iterator[tuple[set[str], set[str]]]:
    """Axes that meet in each product of two tensors, and those that it keeps for the next."""
    held = set(equation.terms[0])
    for index, term in enumerate(equation.terms[1:], 2):
        met = held | set(term)
        held = met & set(equation.written).union(*equation.terms[index:])
        yield met, held


def _together(sizes: list[int]) -> int:
    """What no image has a part in counts for every image: the sum must be told as one of images."""
    of_images = [size for size in sizes if size % BATCH == 0]
    others = sum(size for size in sizes if size % BATCH)
    return sum(of_images) + others * (BATCH if of_images else 1)


def _read(call: Call) -> _Equation:
    count = len(call.inputs)
    require(count <= _LARGEST_COUNT, f"it multiplies {count:,} tensors; {_LARGEST_COUNT} are allowed.")
    left, arrow, right = call.text("equation").replace(" ", "").partition("->")
    texts = left.split(",")
    require(
        len(texts) == len(call.inputs), f"its equation is of {len(texts)} tensors, not {len(call.inputs)}."
    )
    terms = tuple(_axes(text, len(call.shape(index))) for index, text in enumerate(texts))
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        for axis, size in zip(term, call.shape(index), strict=True):
            known = sizes.setdefault(axis, size)
            require(known == size or 1 in (known, size), f"its axis {axis} is {known} and {size}.")
            sizes[axis] = max(known, size)
    dots = sorted((axis for axis in sizes if axis.startswith(".")), key=lambda axis: -int(axis[1:]))
    letters = [axis for term in terms for axis in term if axis.isalpha()]
    once = sorted(axis for axis in letters if letters.count(axis) == 1)
    written = _axes(right, len(right.replace("...", "")) + len(dots)) if arrow else (*dots, *once)
    require(
        set(written) <= sizes.keys() and len(set(written)) == len(written),
        "its equation writes an axis twice, or one that no input has.",
    )
    return _Equation(terms, written, sizes)


def _axes(text: str, rank: int) -> tuple[str, ...]:
    found = _TERM.fullmatch(text)
    require(found is not None, "its equation is no list of letters and dots.")
    before, dots, after = found.groups("") if found else ("", "", "")
    hidden = rank - len(before) - len(after)
    require(hidden >= 0 if dots else hidden == 0, f"its equation has other axes than a tensor of {rank}.")
    return (*before, *(f".{place}" for place in range(hidden, 0, -1)), *after)
