"""docs/troubleshooting.md quotes messages that exist, word for word."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.*)`$", TEXT, re.MULTILINE)
SOURCES = ("saq_qat", "export/saq_qat_export", "runtime/saq_qat_runtime")
VARIES = "…"


def messages() -> Iterator[str]:
    """Every string of the sources, with one sign for each value that is put into it."""
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(
                        str(part.value) if isinstance(part, ast.Constant) else VARIES for part in node.values
                    )


SAID = "\n".join(messages())


def test_messages_are_explained() -> None:
    assert len(QUOTED) >= 20


@pytest.mark.parametrize("quoted", QUOTED)
def test_what_a_heading_quotes_is_said_by_the_sources(quoted: str) -> None:
    fragments = [fragment for fragment in quoted.split(VARIES) if re.search(r"\w{3}", fragment)]
    assert fragments
    for fragment in fragments:
        assert fragment.strip() in SAID, fragment
