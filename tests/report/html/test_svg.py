"""Axes hold what they show, and pictures tell heights and places apart."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, PackageLoader

from saq_qat.report.compare import Outcome
from saq_qat.report.html.latency import distribution
from saq_qat.report.html.pareto import pareto_charts
from saq_qat.report.html.svg import Line, bars, chart, linear, logarithmic, thinned

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)
POSITIVE = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20)


@given(VALUES, st.booleans())
def test_a_linear_axis_holds_its_values_between_few_round_ticks(values: list[float], whole: bool) -> None:
    axis = linear(values, 10, 110, whole=whole)
    assert all(10 <= axis.place(value) <= 110 for value in values)
    assert 2 <= len(axis.ticks) <= 9
    assert [place for place, _ in axis.marks] == sorted(place for place, _ in axis.marks)
    assert not whole or all(value == round(value) for value, _ in axis.ticks)
    assert len({label for _, label in axis.ticks}) == len(axis.ticks)


@given(POSITIVE)
def test_a_logarithmic_axis_holds_its_values_and_doubles_alike(values: list[float]) -> None:
    axis = logarithmic(values, 10, 110)
    assert all(10 <= axis.place(value) <= 110 for value in values)
    assert 1 <= len(axis.ticks) <= 8
    steps = [axis.place(axis.low * 2**k) - axis.place(axis.low * 2 ** (k - 1)) for k in (1, 2)]
    assert steps[0] == pytest.approx(steps[1], abs=0.03)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=70))
def test_bars_are_as_high_as_their_share_of_the_tallest(heights: list[int]) -> None:
    path = bars([float(height) for height in heights], 160, 34)
    if not any(heights):
        assert path == ""
        return
    tops = [float(top) for top in re.findall(r"V([\d.]+)h", path)]
    assert tops == pytest.approx([34 * (1 - height / max(heights)) for height in heights], abs=0.051)


def test_the_highest_value_stands_highest_and_later_ones_further_right() -> None:
    picture = chart("t", "x", "y", lines=[Line("a", 0, ((1, 3.0), (2, 1.0), (3, 2.0)))])
    assert picture is not None
    places = [
        tuple(map(float, pair.split())) for pair in picture.path(picture.lines[0].points)[1:].split("L")
    ]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert places[0][1] < places[2][1] < places[1][1]  # downwards from the top


def test_nothing_to_show_is_no_chart_and_zeros_have_no_logarithm() -> None:
    assert chart("t", "x", "y") is None
    assert chart("t", "x", "y", lines=[Line("a", 0, ((1, 0.0),))], log_y=True) is None


@given(st.integers(1, 3000), st.integers(2, 400))
def test_thinned_curves_keep_their_ends(count: int, most: int) -> None:
    points = [(float(i), float(i)) for i in range(count)]
    kept = thinned(points, most)
    assert (kept[0], kept[-1]) == (points[0], points[-1]) and len(kept) <= most + 1
    assert all(a < b for a, b in pairwise(kept))


def outcomes(*values: tuple[float, float]) -> list[Outcome]:
    return [Outcome(str(i), top1, median, None, 1) for i, (top1, median) in enumerate(values)]


def test_costs_within_a_percent_are_not_stretched_and_the_axis_says_so() -> None:
    (close,) = pareto_charts(outcomes((80.0, 2.0), (90.0, 2.01)))
    assert "all within 1 %" in close.x_label and "within" not in close.y_label
    assert close.x.place(2.01) - close.x.place(2.0) < 0.2 * (close.x.end - close.x.start)
    assert all(len(label.replace(".", "")) <= 3 for _, label in close.x.ticks)
    (apart,) = pareto_charts(outcomes((99.9, 2.0), (100.0, 3.0)))
    assert "within" not in apart.x_label and "all within 1 %" in apart.y_label
    assert max(value for value, _ in apart.y.ticks) <= 100


@pytest.mark.parametrize(("calls", "drawn"), [(999, False), (1000, True)])
def test_a_distribution_draws_the_percentile_that_its_calls_carry(calls: int, drawn: bool) -> None:
    picture = distribution(1, {"a": [1_000_000 + i for i in range(calls)]})
    assert picture is not None
    (strip,) = picture.strips
    assert (strip.p99 is not None, "99 %" in strip.title) == (drawn, drawn)


def test_the_last_tick_is_not_cut_by_the_edge_of_the_picture() -> None:
    picture = chart("t", "x", "y", lines=[Line("a", 0, ((0.0, 1.0), (10_000_000.0, 2.0)))])
    assert picture is not None
    template = '{% import "macros.html" as draw %}{{ draw.chart(picture) }}'
    drawn = (
        Environment(loader=PackageLoader("saq_qat.report.html")).from_string(template).render(picture=picture)
    )
    texts = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">([^<]+)</text>', drawn)
    assert texts[-1][1] == "10,000,000"
    assert all(float(x) + 3.7 * len(label) <= picture.width for x, label in texts)
