"""The list of faults names tests that exist, and leaves out none of its own."""

import re
from pathlib import Path

FAULTS = Path(__file__).parents[1] / "faults"
ROOT = FAULTS.parents[1]
README = (FAULTS / "README.md").read_text(encoding="utf-8")
ROWS = [line for line in README.splitlines() if re.match(r"\| \d+ \|", line)]


def named(text: str) -> set[Path]:
    """Every file of Python that ``text`` names with its folder, from the root or from the list's own."""
    names = re.findall(r"`([\w/]+/\w+\.py)`", text)
    return {ROOT / name if (ROOT / name).is_file() else FAULTS / name for name in names}


def test_every_file_that_the_list_names_exists() -> None:
    assert len(named(README)) > 50
    assert sorted(str(path) for path in named(README) if not path.is_file()) == []


def test_every_fault_has_a_test_file() -> None:
    assert [int(row.split("|")[1]) for row in ROWS] == list(range(1, 70))
    for row in ROWS:
        assert any(path.name.startswith("test_") for path in named(row)), row


def test_every_test_of_faults_is_in_the_list() -> None:
    own = set(FAULTS.rglob("test_*.py"))
    assert sorted(str(path) for path in own - named(README)) == []
