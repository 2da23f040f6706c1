"""One version of TensorRT's Python API, as its golden file lists it: attributes and signatures."""

import ast
import json
from dataclasses import dataclass
from functools import cache
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, Literal

__all__ = ["LIBRARY", "OTHER", "Api", "Kind", "instance", "list_of", "load_api"]

Form = Literal["library", "class", "instance", "method", "list", "own", "own class", "own function", "other"]

_POSITIONAL = Parameter.POSITIONAL_ONLY


@dataclass(frozen=True)
class Kind:
    """What an expression is: the library, a class, object or method of it, something of ours, or neither."""

    form: Form
    name: str = ""


LIBRARY = Kind("library")
OTHER = Kind("other")


def instance(type_name: str) -> Kind:
    """An object of a type as golden files write it."""
    if type_name.startswith("list["):
        inside = instance(type_name[len("list[") : -1])
        return Kind("list", inside.name) if inside.form == "instance" else OTHER
    plain = type_name in ("", "object", "int", "str", "bool", "float", "None")
    return OTHER if plain else Kind("instance", type_name)


def list_of(kind: Kind) -> Kind:
    """A list or tuple of such objects."""
    return Kind("list", kind.name) if kind.form == "instance" else OTHER


class Api:
    """Names of one version."""

    def __init__(self, version: str, names: dict[str, Any]) -> None:
        self.version = version
        self._names = names
        self.enums: dict[str, list[str]] = names["enums"]
        self.classes: dict[str, dict[str, Any]] = names["classes"]

    def knows(self, type_name: str) -> bool:
        """Whether the library has a class or enum of that name."""
        return type_name in self.classes or type_name in self.enums

    def attribute(self, owner: Kind, name: str) -> Kind | None:
        """What ``owner.name`` is; None if there is no such attribute."""
        if owner.form == "library":
            return self._top(name)
        if owner.form == "class" and owner.name in self.enums:
            return Kind("instance", owner.name) if name in self.enums[owner.name] else None
        if owner.form == "instance" and owner.name in self.enums:
            return OTHER if name in ("name", "value") else None
        return self._member(owner, name)

    def signatures(self, function: Kind) -> list[Signature]:
        """Overloads of a method or function, or of the constructor of a class."""
        if function.form == "class":
            texts = self.classes[function.name]["constructor"]
        else:
            owner, _, name = function.name.rpartition(".")
            texts = self._methods(owner)[name]
        return [_signature(text) for text in texts]

    def property_type(self, owner: Kind, name: str) -> str | None:
        """Type of a property that can be assigned; None if it cannot."""
        for own in self._line(owner.name):
            found = own["properties"].get(name)
            if found is not None:
                return str(found["type"]) if found["writable"] else None
        return None

    def _top(self, name: str) -> Kind | None:
        if name in self._names["functions"]:
            return Kind("method", name)
        if name in self._names["constants"]:
            return instance(self._names["constants"][name])
        return Kind("class", name) if self.knows(name) else None

    def _member(self, owner: Kind, name: str) -> Kind | None:
        nested = f"{owner.name}.{name}"
        if self.knows(nested):
            return Kind("class", nested)
        for path, own in zip(self._path(owner.name), self._line(owner.name), strict=True):
            if f"{path}.{name}" in self.enums:
                return Kind("class", f"{path}.{name}")
            if name in own["constants"]:
                return instance(own["constants"][name])
            if name in own["methods"]:
                return Kind("method", f"{path}.{name}")
            if name in own["properties"]:
                return instance(own["properties"][name]["type"])
        if name == "__init__":
            return Kind("method", f"{owner.name}.__init__")
        return None

    def _methods(self, owner: str) -> dict[str, list[str]]:
        if not owner:
            found: dict[str, list[str]] = self._names["functions"]
            return found
        own = self.classes[owner]
        return {**own["methods"], "__init__": own["constructor"]}

    def _path(self, class_name: str) -> list[str]:
        return [class_name, *self.classes[class_name]["bases"]]

    def _line(self, class_name: str) -> list[dict[str, Any]]:
        return [self.classes[name] for name in self._path(class_name)]


@cache
def load_api(path: Path) -> Api:
    """Read a golden file; the version is its name."""
    return Api(path.stem, json.loads(path.read_text(encoding="utf-8")))


@cache
def _signature(text: str) -> Signature:
    """Of text such as ``(name, flags=..., shape: Dims) -> bool``; annotations stay text."""
    function = ast.parse(f"def function{text}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    parameters = [
        Parameter(
            argument.arg,
            _POSITIONAL if argument in arguments.posonlyargs else Parameter.POSITIONAL_OR_KEYWORD,
            default=Parameter.empty if place < required else None,
            annotation=ast.unparse(argument.annotation) if argument.annotation else "",
        )
        for place, argument in enumerate(positional)
    ]
    returns = ast.unparse(function.returns) if function.returns else ""
    return Signature(parameters, return_annotation=returns)
