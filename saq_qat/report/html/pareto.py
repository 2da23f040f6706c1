"""Accuracy against latency and against size; what no other run beats in both is joined by a line."""

from collections.abc import Sequence
from dataclasses import replace

from saq_qat.report.compare import Outcome
from saq_qat.report.html.svg import Chart, Line, Mark, Point, chart, linear

__all__ = ["frontier", "pareto_charts"]

_CLOSE = 0.01
_WITHIN = "all within 1 %"


def pareto_charts(runs: Sequence[Outcome]) -> tuple[Chart, ...]:
    """A picture of each cost that at least two runs know; runs keep their colours."""
    latencies, sizes = [], []
    for colour, run in enumerate(runs):
        if run.top1 is None:
            continue
        named = f"{run.name}: {run.top1:.2f} %"
        if run.median_ms is not None:
            latencies.append(Mark((run.median_ms, run.top1), colour, f"{named}, {run.median_ms:.3g} ms"))
        if run.file_bytes is not None:
            size = run.file_bytes / 1e6
            sizes.append(Mark((size, run.top1), colour, f"{named}, {size:.3g} MB"))
    batch = next((run.batch for run in runs if run.batch is not None), 1)
    drawn = (
        _chart("Accuracy and latency", f"median ms at batch {batch}", latencies),
        _chart("Accuracy and size", "file, MB", sizes),
    )
    return tuple(each for each in drawn if each is not None)


def _chart(title: str, cost: str, marks: Sequence[Mark]) -> Chart | None:
    if len(marks) < 2:
        return None
    best = frontier([mark.at for mark in marks])
    line = Line("not beaten in both", 6, tuple(best), dashed=True)
    drawn = chart(title, cost, "top-1 %", lines=[line], marks=marks, tight=False)
    return None if drawn is None else _unstretched(drawn, [mark.at for mark in marks])


def _unstretched(drawn: Chart, points: Sequence[Point]) -> Chart:
    """Axes that show values within 1 % of each other as close together, and say so."""
    costs, accuracies = ([point[axis] for point in points] for axis in (0, 1))
    if _alike(costs):
        x = linear(_around(costs), drawn.x.start, drawn.x.end)
        drawn = replace(drawn, x=x, x_label=f"{drawn.x_label}; {_WITHIN}")
    if _alike(accuracies):
        low, high = _around(accuracies)
        y = linear((low, min(high, 100.0)), drawn.y.start, drawn.y.end)
        drawn = replace(drawn, y=y, y_label=f"{drawn.y_label}; {_WITHIN}")
    return drawn


def _alike(values: Sequence[float]) -> bool:
    return max(values) - min(values) < _CLOSE * max(values)


def _around(values: Sequence[float]) -> tuple[float, float]:
    return min(values) * (1 - 2 * _CLOSE), max(values) * (1 + 2 * _CLOSE)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (cost, accuracy) that no other beats in one without losing in the other, cheapest first."""
    kept: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or accuracy > kept[-1][1]:
            kept.append((cost, accuracy))
    return kept
