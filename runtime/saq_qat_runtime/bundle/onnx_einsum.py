"""The shape of what Einsum writes, and what an engine computes on the way there: products of two tensors at a
time, from the left.

Source: the operator's definition, version 12 (https://onnx.ai/onnx/operators).
"""

import re
from dataclasses import dataclass
from math import prod

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.onnx_call import BATCH, Call, Shape

__all__ = ["between", "einsum"]

_TERM = re.compile(r"([A-Za-z]*)(\.\.\.)?([A-Za-z]*)")


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
    held = set(equation.terms[0])
    for index, term in enumerate(equation.terms[1:], 2):
        needed = set(equation.written).union(*equation.terms[index:])
        held = (held | set(term)) & needed
        found.append(equation.size(held))
    of_images = [size for size in found if size % BATCH == 0]
    others = sum(size for size in found if size % BATCH)
    # What no image has a part in counts for every image: the sum must be told as one of images.
    return (sum(of_images) + others * (BATCH if of_images else 1)) * call.tensor(0).width


def _read(call: Call) -> _Equation:
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
    before, dots, after = found.groups() if found else ("", None, "")
    hidden = rank - len(before) - len(after)
    require(hidden >= 0 if dots else hidden == 0, f"its equation has other axes than a tensor of {rank}.")
    return (*before, *(f".{place}" for place in range(hidden, 0, -1)), *after)
