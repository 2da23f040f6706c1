"""configs/README.md: every recipe and study has one row, which says of it what its head says."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.docs.paper_tables import CONFIGS, rows

PAGE = CONFIGS / "README.md"
STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))
RECIPES = sorted(set(CONFIGS.rglob("*.yaml")) - set(STUDIES))


def row_of(name: str, first: str) -> dict[str, str]:
    """The row of the table headed ``first`` whose first cell has a pattern that the name fits."""
    fits = [
        row
        for row in rows(PAGE, first)
        if any(fnmatchcase(name, pattern.strip(" `")) for pattern in row[first].split(","))
    ]
    assert len(fits) == 1, f"{name} fits {len(fits)} rows"
    return fits[0]


def head(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\nversion:")[0]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_recipe_was_run_as_its_head_says(path: Path) -> None:
    row = row_of(str(path.relative_to(CONFIGS).with_suffix("")), "recipe")
    if row["run"] == "no":
        assert "Not run" in head(path) or "Not measured" in head(path)
        assert not row["results"]
    elif row["run"].startswith("shortened"):
        # Lines of a head break where they are full.
        assert "Measured" in head(path) and "schedule" in head(path)
    assert row["run"] == "no" or "Not" not in head(path)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_was_run_as_its_head_says(path: Path) -> None:
    row = row_of(path.stem, "study")
    assert ("Not run" in head(path)) == (row["run"] == "no")
    assert ("measured" in head(path).lower()) == (row["run"] == "yes")
    assert (row["run"] == "no") == (not row["results"])


def test_every_row_is_of_a_file() -> None:
    names = [str(path.relative_to(CONFIGS).with_suffix("")) for path in RECIPES]
    patterns = [p.strip(" `") for row in rows(PAGE, "recipe") for p in row["recipe"].split(",")]
    assert all(any(fnmatchcase(name, pattern) for name in names) for pattern in patterns)
    stems = [path.stem for path in STUDIES]
    patterns = [p.strip(" `") for row in rows(PAGE, "study") for p in row["study"].split(",")]
    assert all(any(fnmatchcase(stem, pattern) for stem in stems) for pattern in patterns)
