"""A study's pictures: every seed's point and the mean; paired differences with their interval."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from saq_qat.analysis.figures import INK, rendered
from saq_qat.analysis.study.arms import Kind
from saq_qat.analysis.study.quantities import Quantity, RunResult, value_of
from saq_qat.analysis.study.result import ComparisonResult, StudyResult
from saq_qat.analysis.study.text import headline, shown_quantities
from saq_qat.errors import SetupError
from saq_qat.train.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ARMS_LEGEND",
    "DIFFERENCES_LEGEND",
    "Panel",
    "arm_panels",
    "difference_panels",
    "inline_svg",
    "require_packages",
    "write_pictures",
]

_ACCENT = "#3f8fdc"
_WIDTH, _ROW, _MARGIN, _LETTER = 3.6, 0.3, 0.85, 0.08  # inches
_LEGEND_WIDTH = 48  # characters below one plot
_SHORT = 14  # characters of a name that leave the plot its room
_KINDS: tuple[Kind, ...] = ("equal epochs", "equal compute", "neither")
_TITLES = {"equal epochs": "equal epochs", "equal compute": "equal compute", "neither": "neither equal"}

ARMS_LEGEND = "points: seeds; bar: their mean"
DIFFERENCES_LEGEND = "points: seeds; diamond: their mean; bar: 95 % bootstrap interval"


@dataclass(frozen=True)
class Panel:
    """One plot, ``rows`` rows high, that can stand alone or beside others.

    Attributes:
        longest: characters of the longest name before a row.
    """

    title: str
    rows: int
    longest: int
    draw: Callable[["Axes"], None]


def require_packages() -> None:
    """Raise SetupError unless the packages of statistics and pictures are there."""
    missing = [name for name in ("matplotlib", "scipy") if find_spec(name) is None]
    if missing:
        raise SetupError(
            f"A study needs {' and '.join(missing)}, not installed here: pip install 'saq-qat[analysis]'"
        )


def arm_panels(result: StudyResult, quantities: Sequence[Quantity] | None = None) -> list[Panel]:
    """A panel for each quantity that seeds decide: all arms, each seed's point and the mean."""
    shown = shown_quantities(result) if quantities is None else quantities
    longest = max(len(arm.name) for arm in result.arms)
    return [
        Panel(_heading(quantity), len(result.arms), longest, _drawn_arms(result, quantity))
        for quantity in shown
        if quantity.key not in ("passes", "image_passes")
    ]


def difference_panels(result: StudyResult) -> list[Panel]:
    """The comparisons at equal epochs, at equal compute, and at neither: one panel each, of one scale."""
    quantity = headline(result)
    return [
        Panel(
            f"{_heading(quantity)}: {_TITLES[kind]}",
            len(chosen),
            max(max(len(c.of), len(c.against) + 2) for c in chosen),
            _drawn_differences(result, chosen, quantity),
        )
        for kind in _KINDS
        if (chosen := [c for c in result.comparisons if c.kind == kind and quantity.key in c.quantities])
    ]


def write_pictures(result: StudyResult, folder: Path) -> list[Path]:
    """Write arms.svg and .png, and differences.svg and .png where arms are compared, into ``folder``.

    Raises:
        SaqError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, panels, legend in (
        ("arms", arm_panels(result), ARMS_LEGEND),
        ("differences", difference_panels(result), DIFFERENCES_LEGEND),
    ):
        for older in folder.glob(f"{name}.*"):
            older.unlink()
        files = rendered(partial(_figure, panels, legend), behind_svg="none") if panels else {}
        for suffix, content in files.items():
            written.append(folder / f"{name}.{suffix}")
            write_whole(written[-1], content)
    return written


def inline_svg(panel: Panel, number: int) -> str:
    """A panel as an element of an HTML page: its ink is the page's, its ids are its own."""
    text = rendered(partial(_figure, [panel]), ["svg"], behind_svg="none")["svg"].decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>p{number}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', text, count=1)
    return text.replace(INK, "currentColor")


def _figure(panels: Sequence[Panel], legend: str = "") -> "Figure":
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [_MARGIN + _ROW * max(panel.rows for panel in line) for line in lines]
    width = _WIDTH + _LETTER * max(0, max(panel.longest for panel in panels) - _SHORT)
    figure = Figure(figsize=(width * columns, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(lines), columns, height_ratios=heights)
    for row, line in enumerate(lines):
        for column, panel in enumerate(line):
            axes = figure.add_subplot(grid[row, column])
            panel.draw(axes)
            _dress(axes, panel)
    if legend:
        figure.supxlabel(fill(legend, _LEGEND_WIDTH * columns), fontsize=8.0, color=INK)
    return figure


def _dress(axes: "Axes", panel: Panel) -> None:
    axes.set_title(panel.title, color=INK, loc="left")
    axes.set_ylim(panel.rows - 0.5, -0.5)
    axes.tick_params(colors=INK, length=3)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    axes.patch.set_alpha(0.0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)


def _drawn_arms(result: StudyResult, quantity: Quantity) -> Callable[["Axes"], None]:
    def draw(axes: "Axes") -> None:
        axes.set_yticks(range(len(result.arms)), [arm.name for arm in result.arms])
        for row, arm in enumerate(result.arms):
            values = list(_values(result.runs, arm.name, quantity))
            axes.plot(values, _around(row, len(values)), "o", color=_ACCENT, alpha=0.75, markersize=4.5)
            spread = arm.quantities.get(quantity.key)
            if spread is not None:
                axes.plot([spread.mean] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=1.6)

    return draw


def _drawn_differences(
    result: StudyResult, comparisons: Sequence[ComparisonResult], quantity: Quantity
) -> Callable[["Axes"], None]:
    low, high = _limits(result, quantity)

    def draw(axes: "Axes") -> None:
        axes.set_yticks(range(len(comparisons)), [f"{c.of}\n- {c.against}" for c in comparisons])
        axes.axvline(0.0, color=INK, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_xlim(low, high)
        for row, comparison in enumerate(comparisons):
            pair = comparison.quantities[quantity.key]
            heights = _around(row, len(pair.seeds))
            axes.plot(pair.differences, heights, "o", color=_ACCENT, alpha=0.75, markersize=4.5, zorder=3)
            if pair.bootstrap is not None:
                axes.plot([pair.bootstrap.low, pair.bootstrap.high], [row, row], color=INK, linewidth=1.4)
            if pair.mean is not None:
                axes.plot([pair.mean], [row], "D", color=INK, markersize=7, fillstyle="none")

    return draw


def _limits(result: StudyResult, quantity: Quantity) -> tuple[float, float]:
    """One scale for all panels of differences, with zero in it."""
    pairs = [c.quantities[quantity.key] for c in result.comparisons if quantity.key in c.quantities]
    values = [0.0, *(value for pair in pairs for value in pair.differences)]
    margin = 0.08 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin


def _values(runs: Sequence[RunResult], arm: str, quantity: Quantity) -> Iterator[float]:
    for run in runs:
        value = value_of(run, quantity.key) if run.arm == arm else None
        if value is not None:
            yield value


def _around(row: int, count: int) -> list[float]:
    """Heights of points about a row, so that equal values do not hide each other."""
    return [row + 0.1 * (index - (count - 1) / 2) * min(1.0, 4 / max(1, count)) for index in range(count)]


def _heading(quantity: Quantity) -> str:
    return f"{quantity.label} [{quantity.unit}]" if quantity.unit else quantity.label
