"""Expressions: calls, containers and comparisons, and which of them a version does not allow."""

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.contract.tensorrt_api.api import LIBRARY, OTHER, Kind, list_of
from tests.contract.tensorrt_api.calls import fault_of_call, is_number, wants_member
from tests.contract.tensorrt_api.names import Names
from tests.contract.tensorrt_api.program import PACKAGES, join

__all__ = ["Expressions", "asked_for"]

_SEQUENCES = frozenset({"list", "tuple", "sorted", "reversed", "iter", "set"})
Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


def asked_for(test: ast.expr, *, absent: bool = False) -> list[str]:
    """Attributes whose presence a condition asks for; ``absent``: those whose absence makes it true."""
    calls = [n for n in ast.walk(test) if isinstance(n, ast.Call) and ast.unparse(n.func) == "hasattr"]
    denied = [n.operand for n in ast.walk(test) if isinstance(n, ast.UnaryOp) and isinstance(n.op, ast.Not)]
    names = [c.args[1] for c in calls if (c in denied) == absent and len(c.args) == 2]
    return [str(name.value) for name in names if isinstance(name, ast.Constant)]


class Expressions(Names):
    """Notes what calls pass to functions of ours, and checks calls of the library."""

    shift: ast.expr | None = None

    @contextmanager
    def guarded_by(self, names: Sequence[str]) -> Iterator[None]:
        """Within, these attributes may be missing in a version."""
        before = len(self.guards)
        self.guards += names
        yield
        del self.guards[before:]

    # Parts

    def kind_IfExp(self, node: ast.IfExp) -> Kind | None:
        self.kind(node.test)
        with self.guarded_by(asked_for(node.test)):
            chosen = self.kind(node.body)
        return join(chosen, self.kind(node.orelse))

    def kind_BoolOp(self, node: ast.BoolOp) -> Kind | None:
        found = None
        absent = isinstance(node.op, ast.Or)
        with self.guarded_by(()):
            for value in node.values:
                found = join(found, self.kind(value))
                self.guards += asked_for(value, absent=absent)
        return found

    def kind_NamedExpr(self, node: ast.NamedExpr) -> Kind | None:
        found = self.kind(node.value)
        self.bind(node.target, found, node.value)
        return found

    def kind_Starred(self, node: ast.Starred) -> Kind | None:
        return self.kind(node.value)

    def kind_List(self, node: ast.List | ast.Tuple | ast.Set) -> Kind | None:
        return self._listed(node.elts)

    kind_Tuple = kind_Set = kind_List

    def kind_Dict(self, node: ast.Dict) -> Kind | None:
        for key in node.keys:
            if key is not None:
                self.kind(key)
        return self._listed(node.values)

    def _listed(self, parts: Sequence[ast.expr]) -> Kind | None:
        held: Kind | None = OTHER if not parts else None
        kinds = [self.kind(part) for part in parts]
        for kind in kinds:
            held = join(held, kind)
        return None if held is None else list_of(held)

    def kind_ListComp(self, node: Comprehension) -> Kind | None:
        for generator in node.generators:
            self.bind(generator.target, self.element(self.kind(generator.iter)), None)
            for test in generator.ifs:
                self.kind(test)
        if isinstance(node, ast.DictComp):
            self.kind(node.key)
        return self._listed([node.value if isinstance(node, ast.DictComp) else node.elt])

    kind_SetComp = kind_GeneratorExp = kind_DictComp = kind_ListComp

    def kind_Subscript(self, node: ast.Subscript) -> Kind | None:
        self.kind(node.slice)
        return self.element(self.kind(node.value))

    def kind_Lambda(self, node: ast.Lambda) -> Kind:
        for argument in node.args.args:
            self.facts.note(self.scopes[-1], argument.arg, OTHER)
        self.kind(node.body)
        return OTHER

    def kind_Yield(self, node: ast.Yield) -> Kind:
        if node.value is not None:
            self.facts.note(self.scopes[-1], "return", self._listed([node.value]))
        return OTHER

    def kind_Compare(self, node: ast.Compare) -> Kind:
        sides = [node.left, *node.comparators]
        members = [kind for kind in map(self.kind, sides) if kind is not None and kind.name in self.api.enums]
        if members and any(map(is_number, sides)):
            self.say(node, f"{ast.unparse(node)}: compare with a member by name, not with a number")
        return OTHER

    def kind_BinOp(self, node: ast.BinOp) -> Kind:
        if isinstance(node.op, ast.LShift) and ast.unparse(node.left) == "1":
            self.shift = node.right
        for side in (node.left, node.right):
            self.kind(side)
        return OTHER

    # What is assigned

    def bind(self, target: ast.expr, kind: Kind | None, value: ast.expr | None) -> None:
        """Note what a name, attribute or tuple of these comes to hold."""
        match target:
            case ast.Name(id=name):
                self.facts.note(self.scopes[-1], name, kind)
            case ast.Attribute(value=owner, attr=attr):
                self._bind_attribute(target, self.kind(owner), attr, kind, value)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                same = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(parts)
                for place, part in enumerate(parts):
                    own = value.elts[place] if same and isinstance(value, ast.Tuple | ast.List) else None
                    self.bind(part, self.element(kind) if own is None else self.kind(own), own)
            case ast.Starred(value=inner):
                self.bind(inner, kind, None)
            case _:
                self.kind(target)

    def _bind_attribute(
        self, node: ast.Attribute, owner: Kind | None, attr: str, kind: Kind | None, value: ast.expr | None
    ) -> None:
        if owner is None:
            self.say(node, f"cannot tell what {ast.unparse(node.value)} is, whose {attr} is assigned")
        elif owner.form == "own":
            self.facts.note(owner.name, attr, kind)
        elif owner.form == "instance" and self.api.attribute(owner, attr) is None:
            self.missing(node, owner)
        elif owner.form == "instance":
            self.use(node, owner)
            wanted = self.api.property_type(owner, attr)
            if wanted is None:
                self.say(node, f"{owner.name}.{attr} cannot be assigned")
            elif value is not None and wants_member(attr, wanted, value, self.api):
                self.say(node, f"{owner.name}.{attr} takes a member of an enum by name, not a number")

    # Calls

    def kind_Call(self, node: ast.Call) -> Kind | None:
        called = self.kind(node.func)
        for argument in node.args:
            self.kind(argument)
        for keyword in node.keywords:
            self.kind(keyword.value)
        if isinstance(node.func, ast.Attribute) and called == OTHER:
            return self._call_on_list(node.func)
        if called is None or called == OTHER:
            return self._plain_call(node, called)
        if called.form == "class" and called.name in self.api.enums:
            self.say(node, f"{ast.unparse(node)}: name the member, since numbers differ between versions")
            return Kind("instance", called.name)
        if called.form in ("class", "method"):
            return self._library_call(node, called)
        return self._own_call(node, called)

    def _plain_call(self, node: ast.Call, called: Kind | None) -> Kind | None:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name == "import_module":
            first = node.args[0]
            package = str(first.value) if isinstance(first, ast.Constant) else None
            return None if package is None else LIBRARY if package.partition(".")[0] in PACKAGES else OTHER
        held = self.kind(node.args[0]) if node.args else None
        if name == "int" and held is not None and held.name in self.api.enums and node is not self.shift:
            self.say(node, f"{ast.unparse(node)}: only 1 << int(member) may use the number of a member")
        if (
            name in ("list", "tuple", "sorted", "reversed", "iter")
            and held is not None
            and held.form == "list"
        ):
            return held
        return called

    def _call_on_list(self, function: ast.Attribute) -> Kind | None:
        owner = self.kind(function.value)
        if owner is not None and owner.form == "list":
            return owner if function.attr in ("values", "copy") else self.element(owner)
        return OTHER

    def _library_call(self, node: ast.Call, called: Kind) -> Kind:
        if called.name.endswith(".__init__"):
            return OTHER
        fault, given = fault_of_call(node, self.api.signatures(called), self.api)
        if fault:
            self.say(node, f"{ast.unparse(node.func)}: {fault}", called.name if "keyword" in fault else "")
        return Kind("instance", called.name) if called.form == "class" else given

    def _own_call(self, node: ast.Call, called: Kind) -> Kind | None:
        if called.form == "own class":
            for base in self.facts.bases(called.name):
                start = f"{base.name}.__init__"
                if start in self.facts.functions:
                    self._pass(node, start, self.facts.functions[start].args, bound=True)
                    break
            else:
                self._fill_fields(node, called.name)
            return Kind("own", called.name)
        if called.form != "own function":
            return OTHER
        function = self.facts.functions[called.name]
        static = any(ast.unparse(decorator) == "staticmethod" for decorator in function.decorator_list)
        bound = called.name.rpartition(".")[0] in self.facts.classes and not static
        self._pass(node, called.name, function.args, bound=bound)
        return self.facts.known(called.name, "return")

    def _pass(self, node: ast.Call, scope: str, arguments: ast.arguments, *, bound: bool) -> None:
        """Note what a call of ours passes to parameters whose annotation promises nothing."""
        listed = [*arguments.posonlyargs, *arguments.args][bound:]
        silent = {a.arg for a in (*listed, *arguments.kwonlyargs) if self.annotation(a.annotation) is None}
        given = [(a.arg, v) for a, v in zip(listed, node.args, strict=False)]
        given += [(keyword.arg or "", keyword.value) for keyword in node.keywords]
        for name, value in given:
            if name in silent:
                self.facts.note(scope, name, self.kind(value))

    def _fill_fields(self, node: ast.Call, scope: str) -> None:
        body = self.facts.classes[scope].body
        fields = [s for s in body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
        names = {ast.unparse(f.target): f.annotation for f in fields}
        given = [*zip(names, node.args, strict=False), *((k.arg or "", k.value) for k in node.keywords)]
        for name, value in given:
            if name in names and self.annotation(names[name]) is None:
                self.facts.note(scope, name, self.kind(value))
