"""Tensors of the Open Inference Protocol: their datatypes, and numbers as JSON or as bytes.

Sources: https://github.com/kserve/open-inference-protocol (inference_rest.md, "Tensor Data Types"); Triton's
binary tensor data extension, which both KServe and Triton describe.
"""

import math
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.errors import InputError

__all__ = ["DATATYPES", "checked_shape", "from_bytes", "from_json", "strings_to_bytes", "to_bytes"]

DATATYPES = {"float32": "FP32", "uint8": "UINT8", "int8": "INT8", "int32": "INT32", "int64": "INT64"}
"""From a dtype of a manifest to the protocol's name."""

_LITTLE_ENDIAN_FLOAT = np.dtype("<f4")
_DEEPEST = 8


def checked_shape(shape: Any, where: str) -> tuple[int, ...]:
    """The sizes of a tensor; raises InputError unless it is a list of whole numbers from 0."""
    legal = isinstance(shape, list) and len(shape) <= _DEEPEST
    if not legal or not all(type(size) is int and size >= 0 for size in shape):
        raise InputError(f"{where}: shape must be a list of at most {_DEEPEST} whole numbers from 0.")
    return tuple(shape)


def from_bytes(content: bytes, shape: tuple[int, ...], where: str) -> NDArray[np.float32]:
    """A float32 tensor of its little-endian bytes; raises InputError for another number of bytes."""
    expected = math.prod(shape) * _LITTLE_ENDIAN_FLOAT.itemsize
    if len(content) != expected:
        raise InputError(f"{where}: shape {list(shape)} of FP32 takes {expected} bytes, got {len(content)}.")
    return np.frombuffer(content, _LITTLE_ENDIAN_FLOAT).astype(np.float32, copy=False).reshape(shape)


def from_json(data: Any, shape: tuple[int, ...], where: str) -> NDArray[np.float32]:
    """A float32 tensor of numbers, flat or nested in row-major order.

    Raises InputError unless there are as many numbers as the shape says, and all of them fit float32.
    """
    values = _flat(data, where)
    expected = math.prod(shape)
    if len(values) != expected:
        raise InputError(f"{where}: shape {list(shape)} takes {expected} numbers, got {len(values)}.")
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused with the other infinities
            return np.array(values, np.float64).astype(np.float32).reshape(shape)
    except OverflowError as error:
        raise InputError(f"{where}: a number in data is too large for FP32.") from error


def to_bytes(tensor: NDArray[np.float32]) -> bytes:
    """Little-endian, row-major."""
    return tensor.astype(_LITTLE_ENDIAN_FLOAT, copy=False).tobytes()


def strings_to_bytes(strings: list[str]) -> bytes:
    """BYTES elements: the length of each in 4 bytes, little-endian, before its UTF-8."""
    encoded = [string.encode() for string in strings]
    return b"".join(len(each).to_bytes(4, "little") + each for each in encoded)


def _flat(data: Any, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise InputError(f"{where}: data must be a list of numbers, flat or nested.")
    values = data
    for _ in range(_DEEPEST):
        kinds = set(map(type, values))
        if kinds <= {int, float}:
            return values
        if kinds != {list}:
            break
        values = list(chain.from_iterable(values))
    raise InputError(f"{where}: data must hold numbers alone, flat or nested alike everywhere.")
