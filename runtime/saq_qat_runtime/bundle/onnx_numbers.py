"""Elements of small tensors of integers, computed beforehand: by them a graph says what shape it wants.

Only operations whose result grows with the batch if anything are followed where it has a part in them, so
that what holds for `BATCH` holds for every batch. Numbers that an engine has no room for are not known: it
would go on with others.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from saq_qat_runtime.bundle.onnx_call import BATCH, Call, has_room
from saq_qat_runtime.bundle.onnx_tensor import INT32, INT64, StoredTensor

__all__ = ["numbers_of"]

Numbers: TypeAlias = tuple[float, ...]
_FEW = 64


def numbers_of(op_type: str, call: Call, width: int) -> Numbers | None:
    """Elements of the first result, None where they are not known. width: bytes of each."""
    found = _found(op_type, call)
    fits = found is not None and all(has_room(number, width) for number in found)
    return found if fits else None


def _found(op_type: str, call: Call) -> Numbers | None:
    if op_type == "Shape":
        end = call.attributes.get("end")
        return call.shape()[call.number("start", 0) : end if isinstance(end, int) else None]
    if op_type == "Constant":
        return _constant(call)
    given = [None if found is None else found.numbers for found in call.inputs]
    if op_type not in _FOLLOWED or not given or any(found is None for found in given):
        return None
    found = _FOLLOWED[op_type](call, [numbers for numbers in given if numbers is not None])
    return found if found is not None and len(found) <= _FEW else None


def _constant(call: Call) -> Numbers | None:
    for name in ("value", "value_int", "value_ints", "value_floats"):
        found = call.attributes.get(name)
        if isinstance(found, StoredTensor):
            return found.numbers
        if isinstance(found, int):
            return (found,)
        if isinstance(found, tuple) and len(found) <= _FEW:
            return found
    return None


def _kept(call: Call, given: Sequence[Numbers]) -> Numbers | None:
    return given[0]


def _cast(call: Call, given: Sequence[Numbers]) -> Numbers | None:
    whole = all(isinstance(number, int) for number in given[0])
    return given[0] if whole and call.number("to", 0) in (INT32, INT64) else None


def _joined(call: Call, given: Sequence[Numbers]) -> Numbers | None:
    return tuple(number for numbers in given for number in numbers)


def _gathered(call: Call, given: Sequence[Numbers]) -> Numbers | None:
    source, places = given
    if len(call.shape()) != 1 or not all(-len(source) <= place < len(source) for place in places):
        return None
    return tuple(source[int(place)] for place in places)


def _sliced(call: Call, given: Sequence[Numbers]) -> Numbers | None:
    if len(call.shape()) != 1 or any(len(numbers) != 1 for numbers in given[1:]):
        return None
    start, end, *axis_and_step = (int(numbers[0]) for numbers in given[1:])
    step = axis_and_step[1] if len(axis_and_step) > 1 else 1
    return given[0][start:end:step] if step else None


def _product(call: Call, given: Sequence[Numbers]) -> Numbers | None:
    pairs = _pairs(given)
    return tuple(a * b for a, b in pairs) if pairs and min(map(min, pairs)) >= 0 else None


def _quotient(call: Call, given: Sequence[Numbers]) -> Numbers | None:
    pairs = _pairs(given)
    exact = all(0 < b < BATCH and a >= 0 and (a % b == 0 or a < BATCH) for a, b in pairs)
    return tuple(a // b for a, b in pairs) if pairs and exact else None


def _sum(call: Call, given: Sequence[Numbers]) -> Numbers | None:
    pairs = _pairs(given)
    return tuple(a + b for a, b in pairs) if pairs and min(map(min, pairs)) >= 0 else None


def _difference(call: Call, given: Sequence[Numbers]) -> Numbers | None:
    pairs = _pairs(given)
    return tuple(a - b for a, b in pairs) if pairs and max(map(max, pairs)) < BATCH else None


def _pairs(given: Sequence[Numbers]) -> list[tuple[float, float]]:
    """Elements that meet, of integers alone; none where they do not."""
    if len(given) != 2 or not all(isinstance(number, int) for numbers in given for number in numbers):
        return []
    first, second = given
    size = max(len(first), len(second))
    if {len(first), len(second)} - {1, size}:
        return []
    longer = [numbers * size if len(numbers) == 1 else numbers for numbers in given]
    return list(zip(*longer, strict=True))


_FOLLOWED: dict[str, Callable[[Call, Sequence[Numbers]], Numbers | None]] = {
    "Add": _sum,
    "Cast": _cast,
    "Concat": _joined,
    "Div": _quotient,
    "Flatten": _kept,
    "Gather": _gathered,
    "Identity": _kept,
    "Mul": _product,
    "Reshape": _kept,
    "Slice": _sliced,
    "Squeeze": _kept,
    "Sub": _difference,
    "Unsqueeze": _kept,
}
