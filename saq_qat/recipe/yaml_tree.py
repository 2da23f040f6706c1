"""YAML 1.2 read as plain data, together with the place of every key and item."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    NodeEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from saq_qat.errors import RecipeError

__all__ = ["MAX_CHARACTERS", "Path", "Tree", "Value", "read_yaml"]

Path = tuple[str | int, ...]
"""Keys and indices from the root down: ``("train", "stages", 0, "lr")``."""

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

MAX_CHARACTERS = 1_000_000
MAX_NODES = 10_000
MAX_DEPTH = 32
MAX_DIGITS = 400
"""No number that anything computes with has more; Python writes no integer of thousands."""

_CORE = "tag:yaml.org,2002:"
_PLAIN_TEXT = {f"{_CORE}{name}" for name in ("str", "timestamp", "merge", "value")}
"""YAML 1.2 knows the last three as text only; ruamel still resolves them."""
_SCALARS = _PLAIN_TEXT | {f"{_CORE}{name}" for name in ("null", "bool", "int", "float")}


@dataclass(frozen=True)
class Tree:
    """The data, and for the path of each key and item its place as a message shows it."""

    value: Value
    places: dict[Path, str] = field(default_factory=dict)

    def nearest(self, path: Path) -> Path:
        """``path`` or, where the recipe does not have it, the nearest section above it."""
        while path and path not in self.places:
            path = path[:-1]
        return path


def read_yaml(text: str, name: str, *, lines: bool = True) -> Tree:
    """Read one YAML 1.2 document of plain data; nothing it contains is ever executed.

    Args:
        text: The document.
        name: What messages call it, usually the file's path.
        lines: Whether places are ``name:line:column``, or just ``name`` for text without lines.

    Raises:
        RecipeError: For a syntax error, a tag, a duplicate key, or more than a recipe can need.
    """
    reader = _Reader(name, lines)
    if len(text) > MAX_CHARACTERS:
        raise reader.error(None, f"longer than {MAX_CHARACTERS} characters; this is no recipe")
    try:
        _check_size(reader, YAML(typ="safe", pure=True).parse(text))
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        raise reader.error(error.problem_mark or error.context_mark, _syntax(error)) from None
    except ReaderError as error:
        raise reader.character(text, error.position) from None
    except YAMLError as error:
        raise reader.error(None, f"not YAML: {error}") from None
    reader.places[()] = reader.at(None)
    return Tree(None if node is None else reader.value(node, ()), reader.places)


def _syntax(error: MarkedYAMLError) -> str:
    problem = str(error.problem)
    if "'\\t'" in problem:
        return "not YAML: a tab cannot indent; use spaces"
    if "another document" in problem:
        return "a second document starts here; a recipe is one"
    return f"not YAML: {problem}"


def _check_size(reader: "_Reader", events: Iterator[Event]) -> None:
    depth = 0
    for count, event in enumerate(events):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise reader.error(event.start_mark, f"nested deeper than {MAX_DEPTH} levels; this is no recipe")
        if count > 2 * MAX_NODES:
            raise reader.error(event.start_mark, f"more than {MAX_NODES} values; this is no recipe")
        if isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
            raise reader.error(event.start_mark, "recipes are YAML 1.2; remove the %YAML line")
        if isinstance(event, NodeEvent) and event.anchor is not None:
            raise reader.error(
                event.start_mark, "anchors and aliases (& and *) are not allowed; write the value out"
            )


class _Reader:
    """Turns nodes into plain data and notes where each stands."""

    def __init__(self, name: str, lines: bool) -> None:
        self.name = name
        self.lines = lines
        self.places: dict[Path, str] = {}
        self.scalars = YAML(typ="safe", pure=True).constructor

    def at(self, mark: Any) -> str:
        if not self.lines:
            return self.name
        return f"{self.name}:1:1" if mark is None else f"{self.name}:{mark.line + 1}:{mark.column + 1}"

    def error(self, mark: Any, message: str) -> RecipeError:
        return RecipeError(f"{self.at(mark)}: {message}")

    def character(self, text: str, position: int) -> RecipeError:
        before = text[:position]
        place = f"{before.count(chr(10)) + 1}:{position - before.rfind(chr(10))}"
        return RecipeError(f"{self.name}:{place}: the character {text[position]!r} is not allowed in YAML")

    def value(self, node: Node, path: Path) -> Value:
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if isinstance(node, SequenceNode) and node.tag == f"{_CORE}seq":
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, MappingNode) and node.tag == f"{_CORE}map":
            return self._mapping(node, path)
        raise self._tag_error(node)

    def _item(self, node: Node, path: Path) -> Value:
        self.places[path] = self.at(node.start_mark)
        return self.value(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Value]:
        mapping: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, path) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                raise self.error(
                    key_node.start_mark, "a key must be text; put it in quotes if it is meant so"
                )
            if key in mapping:
                first = self.places[(*path, key)]
                raise self.error(key_node.start_mark, f"the key {key!r} stands here twice; first at {first}")
            self.places[(*path, key)] = self.at(key_node.start_mark)
            mapping[key] = self.value(value_node, (*path, key))
        return mapping

    def _scalar(self, node: ScalarNode) -> Value:
        if node.tag not in _SCALARS:
            raise self._tag_error(node)
        if node.tag in _PLAIN_TEXT:
            return str(node.value)
        if len(node.value) > MAX_DIGITS:
            raise self.error(node.start_mark, f"a number of more than {MAX_DIGITS} characters; is it text?")
        try:
            value: Literal[None] | bool | int | float = self.scalars.construct_object(node)
        except (ValueError, KeyError, IndexError):
            kind = node.tag.removeprefix(_CORE)
            raise self.error(node.start_mark, f"{node.value!r} is not of the type {kind}") from None
        return value

    def _tag_error(self, node: Node) -> RecipeError:
        tag = str(node.tag).replace(_CORE, "!!")
        return self.error(node.start_mark, f"the tag {tag} is not allowed; a recipe is plain data")
