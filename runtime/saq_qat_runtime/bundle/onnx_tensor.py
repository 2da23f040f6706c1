"""Tensors and attributes of an ONNX file: types, shapes, and the few numbers of small tensors.

Numbers of fields are those of onnx/onnx.proto3.
"""

import struct
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.protobuf import fields, integers, message_of, messages, number_of, text_of

__all__ = [
    "FLOAT",
    "INT8",
    "INT32",
    "INT64",
    "LARGEST_RANK",
    "UINT8",
    "UNDEFINED",
    "Attribute",
    "StoredTensor",
    "is_external",
    "is_plain",
    "read_attribute",
    "read_tensor",
]

_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TEXT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS = 1, 3, 4, 5, 8
_ATTRIBUTE_FLOATS = 7
_ATTRIBUTE_TYPE, _ATTRIBUTE_REFERENCE = 20, 21
_TYPE_INT, _TYPE_TEXT, _TYPE_TENSOR, _TYPE_FLOATS, _TYPE_INTS = 2, 3, 4, 6, 7
_PLAIN_TYPES = (1, _TYPE_INT, _TYPE_TEXT, _TYPE_TENSOR, _TYPE_FLOATS, _TYPE_INTS)
_DIMS, _DATA_TYPE, _FLOATS, _INT32, _INT64 = 1, 2, 4, 5, 7
_NAME, _RAW, _EXTERNAL_DATA, _DATA_LOCATION = 8, 9, 13, 14
UNDEFINED, FLOAT, UINT8, INT8, INT32, INT64 = 0, 1, 2, 3, 6, 7
"""Element types of ONNX tensors (``TensorProto.DataType``)."""

LARGEST_RANK = 16
"""Axes of a tensor: those of windows in images have six, and TensorRT takes eight."""

_FORMATS = {FLOAT: "f", INT32: "i", INT64: "q"}
_FEW = 64
"""How many numbers of a tensor are looked at: shapes, pads and scales are no longer."""

_LONGEST = 1 << 18  # bytes of an attribute's floats


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the file.

    size: in the file, bytes. numbers: its elements in order, where they are few and float32, int32 or int64.
    """

    name: str
    element_type: int
    shape: tuple[int, ...]
    size: int
    numbers: tuple[float, ...] | None


Attribute: TypeAlias = int | str | tuple[float, ...] | StoredTensor | None
"""What an attribute holds; None for a float, which tells no size."""


def is_plain(attribute: memoryview) -> bool:
    """Whether an attribute is numbers, strings or a tensor, and no graph, type or reference."""
    kind = number_of(attribute, _ATTRIBUTE_TYPE)
    return kind in _PLAIN_TYPES and not text_of(attribute, _ATTRIBUTE_REFERENCE)


def read_attribute(message: memoryview) -> tuple[str, Attribute]:
    """Name and value, of the type that the attribute itself names."""
    name, kind = text_of(message, _ATTRIBUTE_NAME), number_of(message, _ATTRIBUTE_TYPE)
    if kind == _TYPE_TENSOR:
        inner = message_of(message, _ATTRIBUTE_TENSOR)
        return name, None if inner is None else read_tensor(inner)
    if kind == _TYPE_INTS:
        return name, integers(message, _ATTRIBUTE_INTS)
    if kind == _TYPE_FLOATS:
        return name, _floats(message)
    if kind == _TYPE_INT:
        return name, number_of(message, _ATTRIBUTE_INT) or 0
    return name, text_of(message, _ATTRIBUTE_TEXT) if kind == _TYPE_TEXT else None


def _floats(message: memoryview) -> tuple[float, ...]:
    joined = b"".join(bytes(value) for number, value in messages(message) if number == _ATTRIBUTE_FLOATS)
    require(
        len(joined) % 4 == 0 and len(joined) <= _LONGEST,
        "The model file has an attribute of odd size. Copy or export it again.",
    )
    return struct.unpack(f"<{len(joined) // 4}f", joined)


def read_tensor(message: memoryview) -> StoredTensor:
    """A tensor's facts, its data left where they are."""
    kind, shape = number_of(message, _DATA_TYPE) or UNDEFINED, integers(message, _DIMS)
    return StoredTensor(text_of(message, _NAME), kind, shape, len(message), _numbers(message, kind, shape))


def is_external(tensor: memoryview) -> bool:
    """Whether its data lie in another file."""
    return any(
        number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == 1)
        for number, value in fields(tensor)
    )


def _numbers(message: memoryview, kind: int, shape: tuple[int, ...]) -> tuple[float, ...] | None:
    count = prod(shape) if len(shape) <= LARGEST_RANK else -1
    if kind not in _FORMATS or not 0 <= count <= _FEW:
        return None
    raw = b"".join(bytes(value) for number, value in messages(message) if number == _RAW)
    packed = _FORMATS[kind]
    if raw:
        width = struct.calcsize(f"<{packed}")
        return struct.unpack(f"<{count}{packed}", raw) if len(raw) == width * count else None
    if kind == FLOAT:
        floats = (bytes(value) for number, value in messages(message) if number == _FLOATS)
        joined = b"".join(floats)
        return struct.unpack(f"<{count}f", joined) if len(joined) == 4 * count else None
    listed = integers(message, _INT64 if kind == INT64 else _INT32)
    fits = kind == INT64 or all(-(1 << 31) <= number < 1 << 31 for number in listed)
    return listed if len(listed) == count and fits else None  # engines cut larger numbers to 32 bits
