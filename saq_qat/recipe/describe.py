"""Validation errors told to a user: where, which key, which rule, what was found and what was meant."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from saq_qat.recipe.schema import Recipe, Section
from saq_qat.recipe.yaml_tree import Path, Tree

__all__ = ["describe"]

_RULES = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text; put it in quotes",
    "tuple_type": "must be a list",
    "dict_type": "must be a section of keys and values",
    "model_type": "must be a section of keys and values",
    "model_attributes_type": "must be a section of keys and values",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} item(s)",
    "too_long": "must have at most {max_length} item(s)",
}
"""How pydantic's error types are said; others keep pydantic's words."""


@dataclass(frozen=True)
class _Spot:
    """Where in the recipe an error stands.

    Attributes:
        path: Keys and indices, without the union members that pydantic names between them.
        section: The section that holds the last key, if a section does.
        annotation: The type of what belongs there; None behind an unknown key.
        in_plain_union: Whether the error belongs to one member of a union of plain types.
    """

    path: Path
    section: type[Section] | None = None
    annotation: Any = None
    in_plain_union: bool = False


def describe(error: ValidationError, tree: Tree, root: type[Section] = Recipe) -> list[str]:
    """One line for each thing wrong, as ``place: dotted.path: rule (got value)``, in the file's order.

    Args:
        root: what the file as a whole should have been.
    """
    found: dict[str, int] = {}
    order = {path: index for index, path in enumerate(tree.places)}
    for details in error.errors(include_url=False):
        for path, message in _messages(details, root):
            known = tree.nearest(path)
            parts = (tree.places[known], ".".join(map(str, path)), message)
            found.setdefault(": ".join(filter(None, parts)), order[known])
    return sorted(found, key=lambda line: found[line])


def _messages(details: ErrorDetails, root: type[Section]) -> Iterator[tuple[Path, str]]:
    kind, context, got = details["type"], details.get("ctx", {}), details["input"]
    spot = _spot(details["loc"], root)
    path = spot.path
    if kind == "broken_rules":
        for field, message in context["broken"]:
            yield (*path, *(int(part) if part.isdecimal() else part for part in field.split("."))), message
    elif kind == "extra_forbidden":
        yield path, _unknown_key(str(path[-1]), spot.section)
    elif kind == "missing":
        yield path[:-1], _missing_key(str(path[-1]), spot.section)
    elif kind == "union_tag_not_found":
        yield path, f"needs the key 'kind': {_one_of(_choices(spot.annotation))}"
    elif kind == "union_tag_invalid":
        yield (*path, "kind"), _not_one_of(_choices(spot.annotation), got["kind"])
    elif kind == "literal_error":
        yield path, _not_one_of(_choices(spot.annotation), got)
    elif spot.in_plain_union:
        yield path, f"must be true, false, a number or text (got {_shown(got)})"
    elif kind != "too_short" or len(got) < context["min_length"]:  # else only its items are wrong
        rule = _RULES.get(kind, details["msg"]).format(**context)
        yield path, f"{rule} (got {_shown(got)})"


def _spot(location: tuple[str | int, ...], root: type[Section]) -> _Spot:
    spot = _Spot((), None, root)
    for part in location:
        members = _members(spot.annotation)
        if len(members) > 1:
            chosen = next((member for member in members if part in _kinds(member)), None)
            if chosen is None:
                return _Spot(spot.path, spot.section, None, in_plain_union=True)
            spot = _Spot(spot.path, spot.section, chosen)
        else:
            spot = _below(spot.path, members[0] if members else None, part)
    return spot


def _below(path: Path, annotation: Any, part: str | int) -> _Spot:
    path = (*path, part)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        field = annotation.model_fields.get(str(part))
        return _Spot(path, annotation, None if field is None else field.annotation)
    arguments = get_args(annotation)
    item = arguments[-1 if get_origin(annotation) is dict else 0] if arguments else None
    return _Spot(path, None, item)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types an annotation allows, None apart."""
    if hasattr(annotation, "__metadata__"):
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(member for member in get_args(annotation) if member is not type(None))
    return () if annotation is None else (annotation,)


def _kinds(member: Any) -> tuple[Any, ...]:
    if isinstance(member, type) and issubclass(member, Section):
        return get_args(member.model_fields["kind"].annotation)
    return ()


def _choices(annotation: Any) -> list[Any]:
    """The literals that an annotation allows; for sections their kinds."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [
        choice
        for member in _members(annotation)
        for choice in (_kinds(member) or (get_args(member) if get_origin(member) is Literal else ()))
    ]


def _unknown_key(key: str, section: type[Section] | None) -> str:
    known = [] if section is None else list(section.model_fields)
    close = get_close_matches(key, known, n=1)
    return f"unknown key; did you mean {close[0]!r}?" if close else f"unknown key; known: {', '.join(known)}"


def _missing_key(key: str, section: type[Section] | None) -> str:
    description = None if section is None else section.model_fields[key].description
    return f"needs the key {key!r}" + (f" ({description.rstrip('.')})" if description else "")


def _one_of(choices: list[Any]) -> str:
    *most, last = map(repr, choices)
    return f"{', '.join(most)} or {last}" if most else last


def _not_one_of(choices: list[Any], got: object) -> str:
    close = get_close_matches(str(got), map(str, choices), n=1) if isinstance(got, str) else []
    return f"must be {_one_of(choices)} (got {_shown(got)})" + "".join(
        f"; did you mean {c!r}?" for c in close
    )


def _shown(value: object) -> str:
    """A value as YAML would write it, shortened."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
