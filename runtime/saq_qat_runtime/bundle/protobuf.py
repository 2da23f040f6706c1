"""Protocol buffers as bytes: a message is a list of (field number, value); a nested message is bytes.

https://protobuf.dev/programming-guides/encoding. Where a field of one value stands twice, the last counts, as
every engine's reader has it; a nested message must stand once, since readers merge several.
"""

from collections.abc import Iterator
from itertools import islice

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.errors import ModelError

__all__ = ["encode_field", "fields", "integers", "message_of", "messages", "number_of", "text_of", "texts"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NOT_ONNX = (
    "The model file is not an ONNX model: it is damaged or of another format. Copy or export it again."
)
_CUT_SHORT = "The model file is cut short. Copy or export it again."
_LONGEST = 1 << 16


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field's number with its integer or its bytes; raises ModelError if it is no message."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield field, value
            continue
        if wire == _BYTES:
            size, position = _varint(message, position)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ModelError(_NOT_ONNX)
        require(position + size <= len(message), _CUT_SHORT)
        yield field, message[position : position + size]
        position += size


def encode_field(number: int, value: int | bytes | memoryview) -> bytes:
    """A field with an integer from 0 on, or with bytes."""
    if isinstance(value, int):
        return _to_varint(number << 3 | _VARINT) + _to_varint(value)
    return _to_varint(number << 3 | _BYTES) + _to_varint(len(value)) + bytes(value)


def messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields that hold bytes."""
    for field, value in fields(message):
        if isinstance(value, memoryview):
            yield field, value


def message_of(message: memoryview, wanted: int) -> memoryview | None:
    """The one nested message of a field, if it has any; raises ModelError if it has several."""
    found: memoryview | None = None
    for field, value in messages(message):
        if field == wanted:
            require(
                found is None, f"The model file gives field {wanted} of a message twice. Export it again."
            )
            found = value
    return found


def texts(message: memoryview, wanted: int) -> tuple[str, ...]:
    """All strings of a field; raises ModelError if there are more than any node has."""
    found = (value for field, value in messages(message) if field == wanted)
    listed = tuple(bytes(value).decode(errors="replace") for value in islice(found, _LONGEST + 1))
    require(
        len(listed) <= _LONGEST,
        f"The model file lists more than {_LONGEST} names at one place. Export it again.",
    )
    return listed


def text_of(message: memoryview, wanted: int) -> str:
    """The string of a field, "" if it has none."""
    return ("", *texts(message, wanted))[-1]


def number_of(message: memoryview, wanted: int) -> int | None:
    """The signed integer of a field, None if it has none."""
    found: int | None = None
    for field, value in fields(message):
        if field == wanted and isinstance(value, int):
            found = _signed(value)
    return found


def integers(message: memoryview, wanted: int) -> tuple[int, ...]:
    """All signed integers of a field, packed or one by one; raises ModelError if no shape has so many."""
    found = tuple(islice(_integers(message, wanted), _LONGEST + 1))
    require(
        len(found) <= _LONGEST,
        f"The model file lists more than {_LONGEST} numbers at one place. Export it again.",
    )
    return found


def _integers(message: memoryview, wanted: int) -> Iterator[int]:
    for field, value in fields(message):
        if field == wanted and isinstance(value, int):
            yield _signed(value)
        elif field == wanted and isinstance(value, memoryview):
            position = 0
            while position < len(value):
                number, position = _varint(value, position)
                yield _signed(number)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        require(position < len(message), _CUT_SHORT)
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ModelError(_NOT_ONNX)


def _to_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
