"""Pictures hold every run, are the same each time, and stand beside their numbers."""

import json
from pathlib import Path

import pytest
from PIL import Image

from saq_qat.analysis.curves import Epoch
from saq_qat.analysis.figures import (
    landscape_figure,
    plane_figure,
    radius_figure,
    training_figure,
    write_figure,
)
from saq_qat.analysis.landscape import Line, Plane
from saq_qat.analysis.radius import RadiusPoint
from saq_qat_runtime.errors import ResultError

STEPS = (-1.0, 0.0, 1.0)
NAMES = ["plain", "2$ & <saq>"]


def line(scale: float) -> Line:
    return Line(STEPS, tuple(scale * (step * step + 0.01) for step in STEPS))


def plane(scale: float) -> Plane:
    return Plane(STEPS, tuple(tuple(scale * (a * a + b * b + 0.01) for a in STEPS) for b in STEPS))


def epoch(number: int, cosine: float | None) -> Epoch:
    return Epoch(number, "quantized", 1 / number, None if number == 1 else 1.1, 50.0, cosine, None, 0.1)


def point(rho: float | None, top1: float) -> RadiusPoint:
    return RadiusPoint("runs/a", "best", "0" * 64, "saq" if rho else "plain", rho, 0, top1, True)


FIGURES = {
    "landscape": lambda: landscape_figure({name: line(1 + i) for i, name in enumerate(NAMES)}),
    "plane": lambda: plane_figure({name: plane(1 + i) for i, name in enumerate(NAMES)}),
    "flat": lambda: plane_figure({name: plane(0) for name in NAMES}),
    "training": lambda: training_figure({name: (epoch(1, 0.4), epoch(2, None)) for name in NAMES}),
    "rho": lambda: radius_figure([point(None, 70.0), point(0.2, 71.0), point(0.2, 72.0), point(0.4, 69.0)]),
    "still": lambda: radius_figure([point(None, 70.0)]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_is_written_twice_the_same_beside_its_numbers(tmp_path: Path, name: str) -> None:
    first = write_figure(FIGURES[name], {"numbers": [1.0]}, tmp_path / "one", name)
    second = write_figure(FIGURES[name], {"numbers": [1.0]}, tmp_path / "two", name)
    assert [path.name for path in first] == [f"{name}.json", f"{name}.svg", f"{name}.png"]
    assert [path.read_bytes() for path in first[:2]] == [path.read_bytes() for path in second[:2]]
    assert json.loads(first[0].read_text()) == {"numbers": [1.0]}
    with Image.open(first[2]) as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize("name", ["landscape", "plane", "training"])
def test_names_of_runs_are_text_and_no_formulae_and_numbers_too(tmp_path: Path, name: str) -> None:
    _, svg, _ = write_figure(FIGURES[name], {}, tmp_path, name)
    text = svg.read_text()
    assert ">plain<" in text and "2$ &amp; &lt;saq&gt;" in text
    assert "mathdefault" not in text


def test_numbers_that_are_not_finite_are_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="hold finite numbers"):
        write_figure(FIGURES["rho"], {"loss": float("inf")}, tmp_path, "rho")
    assert not list(tmp_path.iterdir())
