"""The version is one: package, pyproject.toml and changelog agree."""

import re
import tomllib
from pathlib import Path
from typing import Any

from saq_qat import __version__
from saq_qat_runtime import __version__ as RUNTIME_VERSION

ROOT = Path(__file__).parents[2]


def test_pyproject_and_package_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__


def test_the_runtime_has_the_same_version() -> None:
    project = tomllib.loads((ROOT / "runtime/pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == RUNTIME_VERSION == __version__


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    entries = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert entries[0] == __version__


def test_the_tested_versions_lie_within_the_declared_ranges() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [Requirement(text) for text in [*_from_an_index(project), *extras["dev"]]]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {r.name for r in declared} <= tested.keys()
    assert [r for r in declared if not r.specifier.contains(tested[r.name])] == []


def test_the_oldest_versions_that_make_floors_tests_with_are_those_that_are_declared() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    names = [*_from_an_index(project), *extras["vit"], *extras["openvino"], *extras["serve"]]
    declared = [Requirement(text) for text in names]
    lines = (ROOT / "floors.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {r.name: f">={tested[r.name]}" for r in declared} == {r.name: str(r.specifier) for r in declared}


def _from_an_index(project: dict[str, Any]) -> list[str]:
    """What a project depends on, but for the runtime, which lies beside it."""
    return [text for text in project["dependencies"] if not text.startswith("saq-qat-runtime ")]
