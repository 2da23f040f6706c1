"""Documents as programs: files that they show are written, and commands that they give are run, in order."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "blocks", "run_document"]

_BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block that names its language. file: that its text is of; None for commands or an excerpt."""

    language: str
    file: str | None
    text: str


def blocks(document: Path) -> Iterator[Block]:
    """The blocks of a document in order; those without a language show what is not run."""
    for language, file, text in _BLOCK.findall(document.read_text(encoding="utf-8")):
        yield Block(language, file or None, text)


def run_document(document: Path, folder: Path, saq_qat: Callable[..., int]) -> None:
    """Write the document's files into `folder`, which is the working directory, and run its bash blocks.

    saq_qat: runs a command of that name in this process, which saves importing torch for each.
    """
    for block in blocks(document):
        if block.file is not None:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            for line in block.text.splitlines():
                _run(line, folder, saq_qat)


def _run(line: str, folder: Path, saq_qat: Callable[..., int]) -> None:
    words = shlex.split(line, comments=True)
    if words[:1] == ["saq-qat"]:
        assert saq_qat(*words[1:]) == 0, line
    elif words:
        place = str(Path(sys.executable).parent)
        environment = {**os.environ, "PATH": f"{place}{os.pathsep}{os.environ['PATH']}"}
        ran = subprocess.run(
            ["bash", "-euc", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
