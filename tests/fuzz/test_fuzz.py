"""A few cases of every surface, the same ones each time; `make fuzz` tries others for long."""

from pathlib import Path

import pytest

from tests.fuzz.supervise import tried
from tests.fuzz.surface import SURFACES, surface_named, try_case

CASES = {
    "recipes": 60,
    "manifests": 100,
    "golden": 100,
    "checkpoints": 30,
    "pretrained": 60,
    "images": 150,
    "preprocessing": 150,
    "http": 60,
    "lint": 60,
}
"""In the process of the tests."""
APART = {"models": 150, "openvino_models": 80}
"""In a process of their own, which an engine may end."""
TAKEN_FROM_ELSEWHERE = {"networks"}
"""tests/export/test_random_networks.py."""


def test_every_surface_has_its_file_and_is_tried() -> None:
    assert set(SURFACES) == {*CASES, *APART, *TAKEN_FROM_ELSEWHERE}
    assert [surface_named(name).name for name in SURFACES] == list(SURFACES)


@pytest.mark.filterwarnings("ignore")  # what odd inputs make Pillow, NumPy and torch say
@pytest.mark.parametrize("name", CASES)
def test_nothing_but_typed_refusals(name: str, tmp_path: Path) -> None:
    surface = surface_named(name)
    with surface.opened(tmp_path) as case:
        outcomes = {try_case(surface, case, seed) for seed in range(CASES[name])}
    assert len(outcomes) >= 2, f"harm that is never refused, or always: {outcomes}"


@pytest.mark.parametrize("name", APART)
def test_nothing_but_typed_refusals_and_no_crash(name: str) -> None:
    told = tried(name, 0, cases=APART[name])
    assert told.findings == {}
    assert told.cases == APART[name] and len(told.outcomes) >= 2


@pytest.mark.slow  # minutes: each network is checked, trained, exported and proved
def test_random_networks_from_recipe_to_session() -> None:
    told = tried("networks", 0, cases=5)
    assert told.findings == {}
    assert told.cases == 5 and "exact" in told.outcomes
