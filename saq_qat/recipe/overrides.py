"""Overrides from the command line: `train.stages.0.lr=0.01` sets one value of a recipe."""

from collections.abc import Sequence

from saq_qat.errors import RecipeError
from saq_qat.recipe.yaml_tree import Path, Tree, Value, read_yaml

__all__ = ["apply_overrides"]

_SHOWN = 200
"""Characters of an override that a message shows."""
_LONGEST_INDEX = 9


def apply_overrides(tree: Tree, overrides: Sequence[str]) -> Tree:
    """``tree`` with the values of ``overrides`` in their places, the last one winning.

    The value is YAML, as in the recipe; list items go by index. Missing sections are made, so that a misspelt
    path is found, with a suggestion, when the recipe is checked.

    Raises:
        RecipeError: If an override is no ``path=value``, or its path crosses a plain value or leaves a list.
    """
    for override in overrides:
        tree = _apply(tree, override)
    return tree


def _apply(tree: Tree, override: str) -> Tree:
    origin = f"override {override if len(override) <= _SHOWN else override[:_SHOWN] + '...'!r}"
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"{origin}: must be path=value, such as train.stages.0.lr=0.01")
    new = read_yaml(text, origin, lines=False).value
    path, value = _replaced(tree.value, keys, new, (), origin)
    places = {at: place for at, place in tree.places.items() if at[: len(path)] != path}
    for length in range(len(path) + 1):
        places.setdefault(path[:length], origin)
    return Tree(value, places)


def _replaced(value: Value, keys: list[str], new: Value, above: Path, origin: str) -> tuple[Path, Value]:
    """The path that ``keys`` mean, and a copy of ``value`` with ``new`` there."""
    if not keys:
        return above, new
    key, *rest = keys
    if isinstance(value, list):
        index = _index(key, value, above, origin)
        path, item = _replaced(value[index], rest, new, (*above, index), origin)
        return path, [*value[:index], item, *value[index + 1 :]]
    if value is not None and not isinstance(value, dict):
        raise RecipeError(f"{origin}: {_dotted(above)} is no section but the value {value!r}")
    section = value or {}
    path, item = _replaced(section.get(key), rest, new, (*above, key), origin)
    return path, {**section, key: item}


def _index(key: str, items: list[Value], above: Path, origin: str) -> int:
    if not key.isdecimal() or len(key) > _LONGEST_INDEX or int(key) >= len(items):
        known = f"0 to {len(items) - 1}" if items else "none: it is empty"
        raise RecipeError(
            f"{origin}: {_dotted(above)} is a list; its items are {known} (got {key[:_SHOWN]!r})"
        )
    return int(key)


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
