"""From the YAML a user wrote to a checked recipe, and back."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML

from saq_qat.errors import RecipeError
from saq_qat.recipe.describe import describe
from saq_qat.recipe.overrides import apply_overrides
from saq_qat.recipe.schema import Recipe, Section
from saq_qat.recipe.yaml_tree import MAX_CHARACTERS, Tree, Value, read_yaml
from saq_qat.version import __version__
from saq_qat_runtime.bundle.regular_file import open_regular

__all__ = ["as_tuples", "dump_recipe", "load_recipe", "parse_recipe", "parse_section", "read_text"]

VERSION = 1
_Section = TypeVar("_Section", bound=Section)
_MAX_BYTES = 4 * MAX_CHARACTERS
"""Of so many characters in UTF-8."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a file, set the values of ``overrides`` (``path.to.key=value``) and check the whole.

    Raises:
        RecipeError: Naming everything that is wrong, one line each, with file, line and column.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; 'saq-qat init' writes one to start from") from None
    return parse_recipe(text, str(path), overrides)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        FileNotFoundError: there is none.
        RecipeError: it cannot be read, or is in another encoding, with line and column.
    """
    try:
        with open_regular(path) as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise RecipeError(f"{path}: longer than {_MAX_BYTES} bytes; this is no recipe")
    return _decode(content, str(path))


def parse_recipe(text: str, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Check the recipe in ``text``, which messages call ``name``; see :func:`load_recipe`."""
    tree = apply_overrides(_sections(read_yaml(text, name)), overrides)
    _check_version(tree)
    try:
        return Recipe.model_validate(as_tuples(tree.value))
    except ValidationError as error:
        raise RecipeError("\n".join(describe(error, tree))) from None


def parse_section(section: type[_Section], values: Mapping[str, Any], name: str) -> _Section:
    """A section of a recipe, of values that a program gives; messages call them ``name``.

    Raises:
        RecipeError: as :func:`load_recipe`.
    """
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        raise RecipeError("\n".join(describe(error, Tree(None, {(): name}), section))) from None


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with all defaults written out; parsing it gives an equal recipe."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel infers None
    stream = StringIO()
    yaml.dump(_as_lists(recipe.model_dump()), stream)
    return stream.getvalue()


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise RecipeError(f"{name}:{line}:{column}: not UTF-8; save the file in that encoding") from None


def _sections(tree: Tree) -> Tree:
    if tree.value is None:
        raise RecipeError(f"{tree.places[()]}: empty; 'saq-qat init' writes a recipe to start from")
    if not isinstance(tree.value, dict):
        raise RecipeError(
            f"{tree.places[()]}: a recipe is a section of keys and values, such as 'version: 1'"
        )
    return tree


def _check_version(tree: Tree) -> None:
    version = tree.value.get("version") if isinstance(tree.value, dict) else None
    if type(version) is int and version > VERSION:
        raise RecipeError(
            f"{tree.places[('version',)]}: version: {version} needs a newer saq-qat; "
            f"saq-qat {__version__} reads version {VERSION}"
        )


def as_tuples(value: Value) -> Any:
    """Plain data as strict sections take it: lists are tuples."""
    if isinstance(value, dict):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        kind_first = sorted(value, key=lambda key: key != "kind")
        return {key: _as_lists(value[key]) for key in kind_first}
    return list(map(_as_lists, value)) if isinstance(value, tuple) else value
