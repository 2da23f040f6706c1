"""Files and functions stay short enough to be read, and say why a check does not hold for a line."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES, FUNCTION_LINES = 400, 60
SILENT = re.compile(r"# (type: ignore(\[[^\]]*\])?|noqa(: [A-Z]+\d+(, [A-Z]+\d+)*)?)\s*$")
SOURCES = sorted(
    file
    for package in ("saq_qat", "export/saq_qat_export", "runtime/saq_qat_runtime")
    for file in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_source_file_is_short_and_says_what_it_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= FILE_LINES
    assert not text or text.startswith('"""')
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES
    ]
    assert not long


def test_a_file_of_tests_is_short() -> None:
    assert [
        f"{file.relative_to(ROOT)}: {lines} lines"
        for file in sorted((ROOT / "tests").rglob("*.py"))
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > FILE_LINES
    ] == []


def test_whatever_is_ignored_has_its_reason_beside_it() -> None:
    assert [
        f"{file.relative_to(ROOT)}:{number}"
        for file in (*SOURCES, *sorted((ROOT / "tests").rglob("*.py")))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if SILENT.search(line)
    ] == []
