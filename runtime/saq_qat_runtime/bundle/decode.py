"""Strict JSON into frozen dataclasses: every field known, and present if it has no default; no coercion."""

import json
import math
import types
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from saq_qat_runtime.errors import ModelError

__all__ = ["decode", "parse_json", "require", "shown"]

Record = TypeVar("Record")

_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}
_LONGEST_SHOWN = 60  # characters
_NAMES_SHOWN = 8
_SMALLEST_INTEGER, _LARGEST_INTEGER = -(1 << 63), (1 << 63) - 1


def require(condition: bool, rule: str) -> None:
    """Raise ModelError with `rule` unless `condition` holds."""
    if not condition:
        raise ModelError(rule)


def shown(value: object) -> str:
    """A value as messages show it: as Python writes it, and cut where that is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def parse_json(text: str, where: str, fix: str = "Export the bundle again.") -> object:
    """Parse `text`; raises ModelError naming `where` for duplicate keys, NaN, Infinity, endless nesting.

    fix: how to get a whole file, told where the text is not JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except RecursionError:
        raise ModelError(f"{where} is nested too deeply to be such a file. {fix}") from None
    except ValueError as error:
        raise ModelError(f"{where} is not valid JSON: {error}. {fix}") from None


def decode(kind: type[Record], value: object, where: str) -> Record:
    """Build the dataclass `kind` from parsed JSON.

    Fields may be bool, int, float, str, Literal, None, unions of these, tuple[T, ...], dict[str, T] and
    dataclasses.
    Raises ModelError that names the offending path below `where`.
    """
    if not isinstance(value, dict):
        raise _mismatch("an object", value, where)
    own = fields(kind)  # type: ignore[arg-type]  # any dataclass
    known = [field.name for field in own]
    unknown = sorted(value.keys() - set(known))
    missing = [field.name for field in own if field.name not in value and field.default is MISSING]
    require(not unknown, f"{where}: unknown field {_listed(unknown)}. Known: {', '.join(known)}.")
    require(not missing, f"{where}: missing field {', '.join(map(repr, missing))}.")
    hints = get_type_hints(kind)
    values = {name: _decode(hints[name], value[name], f"{where}.{name}") for name in known if name in value}
    try:
        return kind(**values)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None


def _decode(kind: Any, value: object, where: str) -> object:
    if is_dataclass(kind):
        return decode(kind, value, where)  # type: ignore[arg-type]  # is_dataclass takes objects too
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise _mismatch(" or ".join(map(repr, arguments)), value, where)
        return value
    if origin in (Union, types.UnionType):
        return _decode_union(arguments, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _mismatch("a list", value, where)
        return tuple(_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch("an object", value, where)
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _decode_scalar(kind, value, where)


def _decode_union(options: Sequence[Any], value: object, where: str) -> object:
    """The value as the first option that takes it; a lone option beside None reports its own error."""
    if value is None and type(None) in options:
        return None
    others = [option for option in options if option is not type(None)]
    for option in others[:-1]:
        try:
            return _decode(option, value, where)
        except ModelError:
            continue
    return _decode(others[-1], value, where)


def _decode_scalar(kind: Any, value: object, where: str) -> object:
    if kind is float and type(value) in (int, float):
        return _finite(value, where)  # type: ignore[arg-type]  # a number, as just seen
    if type(value) is not kind:
        raise _mismatch(_JSON_NAMES[kind], value, where)
    if kind is int and not _SMALLEST_INTEGER <= value <= _LARGEST_INTEGER:  # type: ignore[operator]  # an integer
        raise _mismatch("an integer of 64 bits", value, where)
    return value


def _finite(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = math.inf
    require(math.isfinite(number), f"{where}: must be a finite float, got {shown(value)}.")
    return number


def _mismatch(expected: str, value: object, where: str) -> ModelError:
    return ModelError(f"{where}: expected {expected}, got {shown(value)}.")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    first = ", ".join(map(shown, names[:_NAMES_SHOWN]))
    return f"{first} and {more:,} more" if more > 0 else first


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"duplicate key {shown(name)}")
            seen.add(name)
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
