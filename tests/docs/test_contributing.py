"""CONTRIBUTING tells the truth: folders of its map exist, lines of its diffs stand in the files they name."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def added_lines() -> Iterator[tuple[str, str]]:
    """File and line of every line that a diff adds."""
    for block in re.findall(r"```diff\n(.*?)```", TEXT, re.DOTALL):
        file = ""
        for line in block.splitlines():
            if line.startswith("+++ "):
                file = line.removeprefix("+++ ")
            elif line.startswith("+"):
                yield file, line[1:]


ADDED = list(added_lines())


def test_every_way_to_extend_shows_its_diff() -> None:
    assert len({file for file, _ in ADDED}) >= 10


@pytest.mark.parametrize(("file", "line"), ADDED, ids=[f"{f}-{i}" for i, (f, _) in enumerate(ADDED)])
def test_what_a_diff_adds_stands_in_its_file(file: str, line: str) -> None:
    assert line in (ROOT / file).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`([\w./-]+/)`", TEXT))))
def test_every_folder_of_the_map_exists(place: str) -> None:
    roots = (ROOT, ROOT / "export/saq_qat_export", ROOT / "runtime/saq_qat_runtime", ROOT / "saq_qat")
    assert any((root / place).is_dir() for root in roots)
