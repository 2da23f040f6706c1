"""SECURITY.md tells the truth: bounds are those of the code, floors those of pyproject.toml."""

import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from saq_qat_runtime.preprocess import FORMATS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
BOUNDS = re.findall(r"^\| [^|]+ \| ([\d,]+)(?: (\w+))? \| `([\w.]+)` \|$", TEXT, re.MULTILINE)
FLOORS = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| (.+) \|$", TEXT, re.MULTILINE)
UNITS = {"": 1, "bytes": 1, "pixels": 1, "s": 1, "MiB": 1 << 20, "GiB": 1 << 30}
SERVER = "saq_qat_runtime.serve.settings"


def value_of(place: str) -> Any:
    """What `module.NAME` or `module.Class.field` is."""
    module, *names = place.split(".")
    found = import_module(module)
    for name in names:
        module = f"{module}.{name}"
        found = getattr(found, name) if hasattr(found, name) else import_module(module)
    return found


@pytest.mark.parametrize(("number", "unit", "place"), BOUNDS, ids=[place for *_, place in BOUNDS])
def test_a_bound_is_that_of_the_code(number: str, unit: str, place: str) -> None:
    assert int(number.replace(",", "")) * UNITS[unit] == value_of(place)


def test_every_bound_of_a_server_is_named() -> None:
    fields = {f"{SERVER}.Bounds.{name}" for name in import_module(SERVER).Bounds.__dataclass_fields__}
    assert fields <= {place for *_, place in BOUNDS}
    assert len(BOUNDS) == len(re.findall(r"^\| .* \| `saq_qat", TEXT, re.MULTILINE))


def test_the_formats_of_images_are_those_that_are_read() -> None:
    assert f"Formats of images: {', '.join(FORMATS)}." in TEXT.replace("\n", " ")


@pytest.mark.parametrize(("name", "allowed", "past"), FLOORS, ids=[name for name, *_ in FLOORS])
def test_a_floor_is_that_of_the_project(name: str, allowed: str, past: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"][1:], *project["optional-dependencies"]["serve"]]
    (requirement,) = (found for found in map(Requirement, asked) if found.name == name)
    assert str(requirement.specifier) == f">={allowed}"
    mended = re.findall(r"\((\d[\d.]*)\)", past)
    assert all(Version(version) <= Version(allowed) for version in mended)
    assert re.search(r"CVE-\d{4}-\d+", past)
