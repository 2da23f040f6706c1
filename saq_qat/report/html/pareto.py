"""Accuracy against latency and against size; what no other run beats in both is joined by a line."""

from collections.abc import Sequence

from saq_qat.report.compare import Outcome
from saq_qat.report.html.svg import Chart, Line, Mark, chart

__all__ = ["frontier", "pareto_charts"]


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
            sizes.append(Mark((size, run.top1), colour, f"{named}, {size:.2f} MB"))
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
    return chart(title, cost, "top-1 %", lines=[line], marks=marks, tight=False)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (cost, accuracy) that no other beats in one without losing in the other, cheapest first."""
    kept: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or accuracy > kept[-1][1]:
            kept.append((cost, accuracy))
    return kept
