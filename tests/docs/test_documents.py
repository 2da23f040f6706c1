"""README and docs/: links lead somewhere, recipes are legal, commands and their options exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from saq_qat.cli.main import app
from saq_qat.recipe.load import parse_recipe
from tests.docs.blocks import blocks

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(
        ROOT / name
        for name in (
            "README.md",
            "BENCHMARKS.md",
            "configs/README.md",
            "runtime/README.md",
            "runtime/SERVING.md",
            "SECURITY.md",
        )
    ),
]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"(?:^|`|&& )(saq-qat(?:-runtime)? [^`\n&]*)", re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Headings as links name them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def links() -> Iterator[tuple[Path, str]]:
    for document in DOCUMENTS:
        for target in _LINK.findall(document.read_text(encoding="utf-8")):
            if "://" not in target:
                yield document, target


@pytest.mark.parametrize(
    ("document", "target"), list(links()), ids=lambda value: getattr(value, "stem", value)
)
def test_a_link_leads_to_a_file_and_to_its_heading(document: Path, target: str) -> None:
    file, _, anchor = target.partition("#")
    place = (document.parent / file) if file else document
    assert place.exists()
    assert not anchor or anchor in anchors(place)


def recipes() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language == "yaml" and "\nmodel:" in block.text:
                yield document.name, block.text


@pytest.mark.parametrize(("name", "text"), list(recipes()))
def test_a_recipe_in_a_document_is_legal(name: str, text: str) -> None:
    assert parse_recipe(text, name).model.name


def commands() -> Iterator[tuple[str, str]]:
    """Document and command line of each `saq-qat ...` in it, comments off."""
    for document in DOCUMENTS:
        for found in _COMMAND.findall(document.read_text(encoding="utf-8")):
            if found.startswith("saq-qat "):
                yield document.name, found


@pytest.mark.parametrize(("document", "line"), list(commands()))
def test_a_command_and_its_options_exist(document: str, line: str) -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    words = shlex.split(line, comments=True)[1:]
    if words[:1] and words[0].startswith("-"):
        return
    command = group.commands.get(words[0])
    assert command is not None, line
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    asked = {word.split("=")[0] for word in words[1:] if word.startswith("--")} - {"--debug"}
    assert asked <= known, line
