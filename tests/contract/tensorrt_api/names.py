"""Names, attributes and annotations: what they stand for, and which attribute a version lacks."""

import ast
import builtins

from tests.contract.tensorrt_api.api import LIBRARY, OTHER, Api, Kind
from tests.contract.tensorrt_api.program import LIBRARY_NAMES, PACKAGES, Facts, Module, join

__all__ = ["Names"]

_SAYS_NOTHING = frozenset({"Any", "object", "ModuleType", "None"})


class Names(ast.NodeVisitor):
    """Knows what the names of a module stand for, and collects problems.

    Attributes:
        problems: (line, text, name) of each; name is that of what a version lacks, else empty.
        uses: (line, column, name) of each attribute of the library or its objects; the column where it ends.
        scopes: module, then the classes and functions around the present place.
        guards: attributes that a surrounding ``hasattr`` asks for.
    """

    def __init__(self, module: Module, facts: Facts, api: Api) -> None:
        self.module, self.facts, self.api = module, facts, api
        self.problems: set[tuple[int, str, str]] = set()
        self.uses: set[tuple[int, int, str]] = set()
        self.scopes = [module.name]
        self._imports = module.imports
        self.guards: list[str] = []

    def visit(self, node: ast.AST) -> None:
        """Expressions are understood, statements are walked."""
        if isinstance(node, ast.expr):
            self.kind(node)
        else:
            super().visit(node)

    def kind(self, node: ast.expr) -> Kind | None:
        """What the expression is; None if nothing is known of it."""
        special = getattr(self, f"kind_{type(node).__name__}", None)
        if special is not None:
            found: Kind | None = special(node)
            return found
        self.generic_visit(node)
        return OTHER

    def say(self, node: ast.AST, text: str, name: str = "") -> None:
        """Note a problem."""
        self.problems.add((getattr(node, "lineno", 0), text, name))

    def use(self, node: ast.Attribute, owner: Kind) -> None:
        """Note an attribute of the library."""
        name = f"{owner.name}.{node.attr}".lstrip(".")
        self.uses.add((node.end_lineno or 0, node.end_col_offset or 0, name))

    def element(self, kind: Kind | None) -> Kind | None:
        """What a list of them holds."""
        if kind is not None and kind.form == "list":
            return Kind("instance", kind.name)
        return None if kind is None else OTHER

    def annotation(self, node: ast.expr | None) -> Kind | None:
        """What an annotation promises; None where it promises nothing, as Any does."""
        match node:
            case None:
                return None
            case ast.Constant(value=str(text)):
                return self.annotation(ast.parse(text, mode="eval").body)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                parts = [self.annotation(p) for p in (left, right) if ast.unparse(p) != "None"]
                return join(parts[0], parts[-1]) if None not in parts else None
            case ast.Subscript(value=ast.Name(id="NDArray")):
                return OTHER
            case ast.Subscript(slice=inside):
                parts = [self.annotation(p) for p in getattr(inside, "elts", [inside])]
                return None if None in parts else OTHER
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return None if name in _SAYS_NOTHING else self._instance_of(self.kind(node))
        return OTHER

    def _instance_of(self, kind: Kind | None) -> Kind:
        if kind is not None and kind.form == "own class":
            return Kind("own", kind.name)
        return Kind("instance", kind.name) if kind is not None and kind.form == "class" else OTHER

    # Names and attributes

    def lookup(self, name: str) -> Kind | None:
        """What a name stands for here."""
        for depth, scope in enumerate(reversed(self.scopes)):
            found = self.facts.known(scope, name)
            if found is not None and (depth == 0 or scope not in self.facts.classes):
                return found
        if name in self._imports:
            return self._imported(*self._imports[name])
        if name in LIBRARY_NAMES:
            return LIBRARY
        local = any((scope, name) in self.facts.places for scope in self.scopes)
        return OTHER if hasattr(builtins, name) and not local else None

    def _imported(self, source: str, name: str) -> Kind | None:
        if source.partition(".")[0] in PACKAGES:
            return LIBRARY if not name else self.api.attribute(LIBRARY, name) or OTHER
        known = self.facts.known(source, name)
        return OTHER if known is None else known

    def kind_Name(self, node: ast.Name) -> Kind | None:
        return self.lookup(node.id)

    def kind_Attribute(self, node: ast.Attribute) -> Kind | None:
        owner = self.kind(node.value)
        found = self._attribute(node, owner)
        return LIBRARY if found is None and node.attr in LIBRARY_NAMES else found

    def _attribute(self, node: ast.Attribute, owner: Kind | None) -> Kind | None:
        if owner is None:
            self.say(node, f"cannot tell what {ast.unparse(node.value)} is, whose {node.attr} is used")
        if owner is None or owner == OTHER:
            return owner
        if owner.form in ("own", "own class"):
            return self._own_attribute(node, owner)
        if owner.form in ("own function", "method"):
            return OTHER
        if owner.form == "list":
            return owner if node.attr == "values" else OTHER
        found = self.api.attribute(owner, node.attr)
        self.uses.add(
            (node.end_lineno or 0, node.end_col_offset or 0, f"{owner.name}.{node.attr}".lstrip("."))
        )
        if found is None:
            self.missing(node, owner)
        if node.attr == "value" and owner.name in self.api.enums:
            self.say(node, f"{ast.unparse(node)}: the numbers of enums differ between versions")
        return found or OTHER

    def _own_attribute(self, node: ast.Attribute, owner: Kind) -> Kind | None:
        for base in self.facts.bases(owner.name):
            found = self.facts.known(base.name, node.attr) if base.form == "own" else None
            if base.form == "instance":
                found = self.api.attribute(base, node.attr)
            if found is not None:
                return found
        return None if (owner.name, node.attr) in self.facts.places else OTHER

    def missing(self, node: ast.Attribute, owner: Kind) -> None:
        """Note an attribute that this version lacks, unless ``hasattr`` asks for it."""
        if node.attr not in self.guards:
            text = f"{ast.unparse(node)}: {owner.name or 'the library'} has no {node.attr}"
            self.say(node, text, f"{owner.name}.{node.attr}".lstrip("."))
