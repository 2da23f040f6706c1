"""Our modules as syntax trees, and what is found out about the values in them."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.contract.tensorrt_api.api import OTHER, Kind

__all__ = [
    "LIBRARY_NAMES",
    "PACKAGES",
    "Facts",
    "Function",
    "Module",
    "join",
    "read_modules",
    "relevant",
    "takes_library",
]

PACKAGES = frozenset({"tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx"})
LIBRARY_NAMES = frozenset({"library", "trt", "_library", "_trt"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file; ``imports`` gives (module, name) of a local name, an empty name for a whole module."""

    name: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.source)

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """Of the whole file, functions included."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    found[alias.asname or whole] = (whole, "")
            elif isinstance(node, ast.ImportFrom):
                found.update(
                    {alias.asname or alias.name: (node.module or "", alias.name) for alias in node.names}
                )
        return found


@dataclass
class Facts:
    """What is known of each place: a scope (module, class or function, dotted) and a name in it.

    A function's own scope has its parameters, its local names and ``return``.
    """

    places: dict[tuple[str, str], Kind] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)

    def note(self, scope: str, name: str, kind: Kind | None) -> None:
        """Join ``kind`` to what is known; None says nothing."""
        joined = join(self.places.get((scope, name)), kind)
        if joined is not None:
            self.places[scope, name] = joined

    def known(self, scope: str, name: str) -> Kind | None:
        """What is known of a place."""
        return self.places.get((scope, name))

    def bases(self, class_scope: str) -> Iterator[Kind]:
        """Classes that one of ours derives from, itself first."""
        yield Kind("own", class_scope)
        for place in range(len(self.classes[class_scope].bases)):
            base = self.places.get((class_scope, f"base {place}"), OTHER)
            if base.form == "own class":
                yield from self.bases(base.name)
            elif base.form == "class":
                yield Kind("instance", base.name)


def join(first: Kind | None, second: Kind | None) -> Kind | None:
    """What is known of a value that comes from two places; something of the library wins."""
    return second if first is None or (first == OTHER and second is not None) else first


def read_modules(roots: Iterable[Path]) -> dict[str, Module]:
    """All modules below the folders of packages, by dotted name."""
    found = {}
    for root in roots:
        for file in sorted(root.rglob("*.py")):
            parts = file.relative_to(root.parent).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            found[name] = Module(name, file.read_text(encoding="utf-8"))
    return found


def takes_library(module: Module) -> bool:
    """Whether it imports TensorRT, or is given it under a usual name."""
    imports = module.imports
    imported = any(source.partition(".")[0] in PACKAGES for source, _ in imports.values())
    return imported or not (LIBRARY_NAMES - imports.keys()).isdisjoint(_names(module))


def relevant(modules: dict[str, Module]) -> dict[str, Module]:
    """Those that take the library, what these import from their own packages, and those that import them."""
    takers = {name for name, module in modules.items() if takes_library(module)}
    packages = {name.rpartition(".")[0] for name in takers}
    near = {name for name in modules if name.rpartition(".")[0] in packages}
    imported = set[str]().union(*(_sources(modules[name]) for name in takers)) & near
    importing = {name for name, module in modules.items() if takers & _sources(module)}
    return {name: module for name, module in modules.items() if name in takers | imported | importing}


def _sources(module: Module) -> set[str]:
    """Modules that it imports from."""
    return {name for source, item in module.imports.values() for name in (source, f"{source}.{item}")}


def _names(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner)) if owner in module.imports:
                continue  # torch.library, for instance
            case ast.arg(arg=name) | ast.Name(id=name) | ast.Attribute(attr=name):
                yield name
