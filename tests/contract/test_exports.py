"""Each module says what it offers: `__all__` exists, names real things, and forgets no public one."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("saq_qat", "export/saq_qat_export", "runtime/saq_qat_runtime")
MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def exported(module: ast.Module) -> list[str] | None:
    for node in module.body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def bound(module: ast.Module) -> set[str]:
    """Names that the module's top level binds."""
    names: set[str] = set()
    for node in ast.walk(module):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update(alias.asname or alias.name for alias in aliases)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_all_agrees_with_the_module(file: Path) -> None:
    module = ast.parse(file.read_text(encoding="utf-8"))
    code = [node for node in module.body if not (isinstance(node, ast.Expr) and ast.get_docstring(module))]
    if file.name == "__init__.py" and not code:
        return
    names = exported(module)
    assert names is not None, "the module has no __all__"
    assert len(set(names)) == len(names)
    assert set(names) <= bound(module), "names in __all__ that the module does not have"
    defined = {
        node.name
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    assert defined <= set(names), "public functions and classes missing in __all__: add them or lead with _"
