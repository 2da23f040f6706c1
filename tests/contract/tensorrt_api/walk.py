"""Statements: what names, attributes and parameters come to hold."""

import ast

from tests.contract.tensorrt_api.api import OTHER, Kind, instance
from tests.contract.tensorrt_api.expressions import Expressions, asked_for
from tests.contract.tensorrt_api.program import Function

__all__ = ["Walk"]


class Walk(Expressions):
    """One pass over one module; expressions are left to the base class."""

    def run(self) -> None:
        """Note what the module shows, and collect its problems."""
        self.generic_visit(self.module.tree)

    def visit_FunctionDef(self, node: Function) -> None:
        outer, key = self.scopes[-1], f"{self.scopes[-1]}.{node.name}"
        self.facts.functions[key] = node
        decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
        for part in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if part is not None:
                self.visit(part)
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if outer in self.facts.classes and "staticmethod" not in decorators:
            form = "own class" if "classmethod" in decorators else "own"
            self.facts.note(key, arguments.pop(0).arg, Kind(form, outer))  # type: ignore[arg-type]
        for argument in arguments:
            self.facts.note(key, argument.arg, self.annotation(argument.annotation))
        self._take_from_base(key, arguments)
        for rest in (node.args.vararg, node.args.kwarg):
            if rest is not None:
                self.facts.note(key, rest.arg, OTHER)
        self.facts.note(key, "return", self.annotation(node.returns))
        is_property = decorators & {"property", "cached_property", "functools.cached_property"}
        held = self.facts.known(key, "return") if is_property else Kind("own function", key)
        self.facts.note(outer, node.name, held)
        self._inside(key, node.body)

    def _take_from_base(self, key: str, arguments: list[ast.arg]) -> None:
        """A method that the library calls gets what the method it stands for gets."""
        owner, _, name = key.rpartition(".")
        for base in self.facts.bases(owner) if owner in self.facts.classes else ():
            found = self.api.attribute(base, name) if base.form == "instance" else None
            if found is not None and found.form == "method" and name != "__init__":
                for signature in self.api.signatures(found):
                    for argument, parameter in zip(arguments, signature.parameters.values(), strict=False):
                        self.facts.note(key, argument.arg, instance(str(parameter.annotation)))

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        key = f"{self.scopes[-1]}.{node.name}"
        self.facts.classes[key] = node
        self.facts.note(self.scopes[-1], node.name, Kind("own class", key))
        for decorator in node.decorator_list:
            self.visit(decorator)
        for place, base in enumerate(node.bases):
            self.facts.note(key, f"base {place}", self.kind(base))
        self._inside(key, node.body)

    def _inside(self, scope: str, body: list[ast.stmt]) -> None:
        self.scopes.append(scope)
        with self.guarded_by(()):
            for statement in body:
                self.visit(statement)
        self.scopes.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        kind = self.kind(node.value)
        for target in node.targets:
            self.bind(target, kind, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        kind = None if node.value is None else self.kind(node.value)
        declared = self.annotation(node.annotation)
        self.bind(node.target, kind if declared is None else declared, node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.kind(node.value)
        self.bind(node.target, OTHER, node.value)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.bind(node.target, self.element(self.kind(node.iter)), None)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    visit_AsyncFor = visit_For

    def visit_withitem(self, node: ast.withitem) -> None:
        kind = self.kind(node.context_expr)
        entered = self.element(kind) if kind is not None and kind.form == "list" else kind
        if node.optional_vars is not None:
            self.bind(node.optional_vars, entered, None)

    def visit_If(self, node: ast.If) -> None:
        self.kind(node.test)
        with self.guarded_by(asked_for(node.test)):
            for statement in node.body:
                self.visit(statement)
        with self.guarded_by(asked_for(node.test, absent=True)):
            for statement in node.orelse:
                self.visit(statement)
        if isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue):
            self.guards += asked_for(node.test, absent=True)  # for the rest of the function

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.facts.note(self.scopes[-1], "return", self.kind(node.value))

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name is not None:
            self.facts.note(self.scopes[-1], node.name, OTHER)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name is not None:
            self.facts.note(self.scopes[-1], node.name, OTHER)
        self.generic_visit(node)
