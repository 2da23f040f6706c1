"""The geometry of hand-written pictures: axes, ticks and paths as plain strings; templates draw them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "Axis",
    "Band",
    "Chart",
    "Line",
    "Mark",
    "Point",
    "bars",
    "chart",
    "linear",
    "logarithmic",
    "thinned",
]

Point = tuple[float, float]
WIDTH, HEIGHT = 340.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 20.0, 36.0
"""Room around a plot, in units of the picture: on a telephone one unit is about one pixel."""


@dataclass(frozen=True)
class Axis:
    """From values to places between ``start`` and ``end``; ``ticks``: values and their labels."""

    low: float
    high: float
    start: float
    end: float
    scale: Literal["linear", "log"]
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Where a value stands, rounded to a hundredth of a unit."""
        low, high = (
            (math.log10(self.low), math.log10(self.high)) if self.scale == "log" else (self.low, self.high)
        )
        at = math.log10(max(value, 1e-300)) if self.scale == "log" else value
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 2)

    @property
    def marks(self) -> tuple[tuple[float, str], ...]:
        """Places and labels of the ticks."""
        return tuple((self.place(value), label) for value, label in self.ticks)


def linear(values: Sequence[float], start: float, end: float, *, whole: bool = False, count: int = 5) -> Axis:
    """An axis around ``values`` with round ticks; ``whole``: at whole numbers alone."""
    low, high = min(values), max(values)
    if high <= low:
        low, high = low - max(abs(low), 1.0) * 0.05, high + max(abs(high), 1.0) * 0.05
    step = _round_step((high - low) / count)
    step = math.ceil(step) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple((index * step, _label(index * step, step)) for index in range(first, last + 1))
    return Axis(first * step, last * step, start, end, "linear", ticks)


def logarithmic(values: Sequence[float], start: float, end: float) -> Axis:
    """A logarithmic axis around positive ``values``, ticks at 1, 2 and 5 times powers of ten."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    low, high = (low / 1.05, high * 1.05) if high > low else (low / 2, high * 2)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = math.log10(high / low) > 2.5
    candidates = [digit * 10.0**decade for decade in decades for digit in ((1,) if wide else (1, 2, 5))]
    ticks = tuple((value, f"{value:.4g}") for value in candidates if low <= value <= high)
    if len(ticks) < 2:
        ticks = ((low * 1.05, f"{low * 1.05:.3g}"), (high / 1.05, f"{high / 1.05:.3g}"))
    return Axis(low, high, start, end, "log", ticks[:: math.ceil(len(ticks) / 7)])


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * digit for digit in (1, 2, 2.5, 5, 10) if power * digit >= rough * (1 - 1e-9))


def _label(value: float, step: float) -> str:
    decimals = next(
        (count for count in range(12) if abs(step * 10**count - round(step * 10**count)) < 1e-6), 12
    )
    return f"{value:,.{decimals}f}" if abs(value) > step / 2 else "0"


@dataclass(frozen=True)
class Line:
    """A curve: its name, its number among the colours, and its points in values; ``listed`` in the legend."""

    name: str
    colour: int
    points: tuple[Point, ...]
    dashed: bool = False
    listed: bool = True


@dataclass(frozen=True)
class Mark:
    """A single point with what a pointer is told of it."""

    at: Point
    colour: int
    title: str


@dataclass(frozen=True)
class Band:
    """A range of the horizontal axis with a name."""

    first: float
    last: float
    name: str


@dataclass(frozen=True)
class Chart:
    """A picture ready to be drawn; the axes place what ``lines``, ``marks`` and ``bands`` hold in values."""

    title: str
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    bands: tuple[Band, ...] = ()
    width: float = WIDTH
    height: float = HEIGHT

    def path(self, points: Sequence[Point]) -> str:
        """The ``d`` of a curve through points."""
        places = [f"{self.x.place(x):g} {self.y.place(y):g}" for x, y in points]
        return "M" + "L".join(places) if places else ""

    def edge(self, value: float) -> float:
        """Where a value of the horizontal axis stands, or the end of the axis that is nearest to it."""
        return self.x.place(min(max(value, self.x.low), self.x.high))

    @property
    def named(self) -> tuple[Line, ...]:
        """The curves that a legend lists."""
        listed = tuple(line for line in self.lines if line.listed)
        return listed if len(self.lines) > 1 else ()


def chart(
    title: str,
    x_label: str,
    y_label: str,
    *,
    lines: Sequence[Line] = (),
    marks: Sequence[Mark] = (),
    bands: Sequence[Band] = (),
    log_x: bool = False,
    log_y: bool = False,
    whole_x: bool = False,
    tight: bool = True,
) -> Chart | None:
    """A chart whose axes hold all that is shown; None where there is nothing to show.

    Args:
        whole_x: ticks of the horizontal axis at whole numbers alone. tight: it ends where the values do.
    """
    shown = [point for line in lines for point in line.points] + [mark.at for mark in marks]
    if log_y:
        lines = [replace(a, points=tuple(p for p in a.points if p[1] > 0)) for a in lines]
        shown = [point for point in shown if point[1] > 0]
    if not shown:
        return None
    xs = [x for x, _ in shown] + [edge for band in bands for edge in (band.first, band.last)]
    ys = [y for _, y in shown]
    up = (HEIGHT - BOTTOM, TOP)
    x_axis = _across(xs, log=log_x, tight=tight, whole=whole_x)
    y_axis = logarithmic(ys, *up) if log_y else linear(ys, *up)
    return Chart(title, x_axis, y_axis, x_label, y_label, tuple(lines), tuple(marks), tuple(bands))


def _across(values: Sequence[float], *, log: bool, tight: bool, whole: bool) -> Axis:
    """The horizontal axis, as the arguments of ``chart`` have it."""
    start, end = LEFT, WIDTH - RIGHT
    if log:
        return logarithmic(values, start, end)
    rounded = linear(values, start, end, whole=whole)
    low, high = min(values), max(values)
    if not tight or high <= low:
        return rounded
    ticks = tuple((value, label) for value, label in rounded.ticks if low <= value <= high)
    return Axis(low, high, start, end, "linear", ticks)


def bars(heights: Sequence[float], width: float, height: float) -> str:
    """The ``d`` of touching bars from the ground of a box; the tallest fills it."""
    tallest = max(heights, default=0.0)
    if tallest <= 0:
        return ""
    step = width / len(heights)
    tops = [round(height * (1 - value / tallest), 1) for value in heights]
    steps = "".join(f"V{top:g}h{step:g}" for top in tops)
    return f"M0 {height:g}{steps}V{height:g}Z"


def thinned(points: Sequence[Point], most: int) -> tuple[Point, ...]:
    """At most about ``most`` of the points, evenly chosen, the last among them."""
    if len(points) <= most:
        return tuple(points)
    stride = math.ceil(len(points) / most)
    kept = points[::stride]
    return (*kept, points[-1]) if kept[-1] != points[-1] else tuple(kept)
