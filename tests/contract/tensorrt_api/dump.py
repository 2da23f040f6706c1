"""Print the public names of TensorRT's Python bindings as JSON; run as ``python dump.py MODULE``.

Only names are kept: classes, enum members, methods, properties, functions, and of each signature the names of
parameters and those types that the library itself defines.
"""

import importlib
import inspect
import json
import keyword
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["dump", "main", "python_signatures", "signatures"]

_PLAIN = frozenset({"bool", "float", "int", "str", "None"})
_OPENING, _CLOSING = "([{<", ")]}>"


def main() -> None:
    """Dump the module that the command line names."""
    json.dump(dump(importlib.import_module(sys.argv[1])), sys.stdout, indent=1, sort_keys=True)


def dump(library: ModuleType) -> dict[str, Any]:
    """Functions, constants, enums and classes of the module, in plain values that sort."""
    known = _types_of(library)
    found: dict[str, Any] = {"functions": {}, "constants": {}, "enums": {}, "classes": {}}
    found["constants"]["__version__"] = type(library.__version__).__name__
    for path, kind in known.items():
        if _members(kind):
            found["enums"][path] = sorted(_members(kind))
        else:
            found["classes"][path] = _class(kind, known)
    for name, value in _public(library):
        if inspect.isbuiltin(value) or inspect.isfunction(value):
            found["functions"][name] = _callable(value, known)
        elif type(value) in known.values():
            found["constants"][name] = type(value).__qualname__
    return found


def _types_of(library: ModuleType) -> dict[str, type]:
    """Classes by qualified name, nested ones such as ``ILogger.Severity`` too."""
    found: dict[str, type] = {}
    waiting = [value for _, value in _public(library) if isinstance(value, type)]
    while waiting:
        kind = waiting.pop()
        if kind.__qualname__ not in found and "bindings" in kind.__module__:
            found[kind.__qualname__] = kind
            waiting += [value for _, value in _public(kind) if isinstance(value, type)]
    return found


def _public(owner: object) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(owner).items() if not name.startswith("_"))


def _members(kind: type) -> list[str]:
    return list(getattr(kind, "__members__", ()))


def _class(kind: type, known: dict[str, type]) -> dict[str, Any]:
    """What the class itself defines; ``bases`` say where the rest is."""
    methods, properties, constants = {}, {}, {}
    for name, value in _public(kind):
        if isinstance(value, property):
            properties[name] = {"type": _property_type(value, known), "writable": value.fset is not None}
        elif callable(value) and not isinstance(value, type):
            methods[name] = _callable(value, known)
        elif type(value) in known.values():
            constants[name] = type(value).__qualname__
    return {
        "bases": [base.__qualname__ for base in kind.__mro__[1:] if base in known.values()],
        "constructor": signatures(str(vars(kind).get("__init__", kind).__doc__), "__init__", known),
        "methods": methods,
        "properties": properties,
        "constants": constants,
    }


def _property_type(value: property, known: dict[str, type]) -> str:
    text = getattr(value.fget, "__doc__", None) or ""
    returned = text.partition("->")[2].strip().splitlines()
    return _type(returned[0], known) if returned else "object"


def _callable(value: Any, known: dict[str, type]) -> list[str]:
    found = signatures(value.__doc__ or "", getattr(value, "__name__", ""), known)
    return found or python_signatures(value)


def python_signatures(value: Any) -> list[str]:
    """Of a function written in Python; none where it gives none."""
    try:
        parameters = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return []
    own = [p if p.default is p.empty else p.replace(default=...) for p in parameters.values()]
    texts = [str(p.replace(annotation=p.empty)).replace("Ellipsis", "...") for p in own if p.name != "self"]
    return [f"({', '.join(texts)})"]


def signatures(document: str, name: str, known: dict[str, type]) -> list[str]:
    """One signature for each overload that a docstring of pybind11 lists, without ``self``.

    Args:
        known: the library's classes by qualified name; other types become "object", but for a few plain ones.
    """
    pattern = re.compile(rf"^(?:\d+\. )?{re.escape(name)}(?=\()", re.MULTILINE)
    found = []
    for match in pattern.finditer(document):
        inside, rest = _bracketed(document[match.end() :])
        parameters = [part for part in _split(inside) if not part.startswith("self")]
        returned = rest.partition("->")[2].strip().splitlines() if rest.lstrip().startswith("->") else []
        result = f" -> {_type(returned[0], known)}" if returned else ""
        text = f"({', '.join(_parameters(parameters, known))}){result}"
        if "*args" not in text and text not in found:
            found.append(text)
    return found


def _parameters(parts: list[str], known: dict[str, type]) -> Iterator[str]:
    unnamed = False
    for part in parts:
        name, _, rest = part.partition(":")
        annotation, has_default, _ = rest.partition(" = ")
        kind = _type(annotation, known)
        default = "=..." if has_default else ""
        unnamed = unnamed or bool(re.fullmatch(r"arg\d+", name))
        safe = f"{name}_" if keyword.iskeyword(name) else name
        yield f"{safe}{'' if kind == 'object' else f': {kind}'}{default}"
    if unnamed:
        yield "/"


def _type(text: str, known: dict[str, type]) -> str:
    """A type of the library or a plain one, or a list of those; all else is "object"."""
    text = text.strip()
    inside = re.fullmatch(r"(?:list|List)\[(.*)\]", text)
    if inside:
        return f"list[{_type(inside[1], known)}]"
    match = re.fullmatch(r"(?:\w+(?:\.|::))*(\w+)", text)
    # The parser's classes keep their C++ names in docstrings, with an I in front.
    ends = [text, text.removeprefix("nvonnxparser::I")]
    nested = [path for path in known for end in ends if f".{end}".replace("::", ".").endswith(f".{path}")]
    if nested:
        return max(nested, key=len)
    return match[1] if match and match[1] in _PLAIN else "object"


def _bracketed(text: str) -> tuple[str, str]:
    """What stands inside the bracket that ``text`` begins with, and what follows it."""
    depth = 0
    for place, letter in enumerate(text.replace("->", "  ")):
        depth += (letter in _OPENING) - (letter in _CLOSING)
        if depth == 0:
            return text[1:place], text[place + 1 :]
    return "", ""


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no bracket."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in _OPENING) - (letter in _CLOSING)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


if __name__ == "__main__":
    main()
