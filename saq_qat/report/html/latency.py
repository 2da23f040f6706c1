"""How latencies are distributed: a strip for each candidate on one logarithmic axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saq_qat.report.html.svg import RIGHT, WIDTH, Axis, bars, logarithmic
from saq_qat_runtime.bench.latency import Latency
from saq_qat_runtime.report.text import counted

__all__ = ["Distribution", "Strip", "distribution"]

_BINS = 70
_ROW, _STRIP = 44.0, 24.0  # height of a row, and of the bars in it
_LEFT, _BELOW = 6.0, 24.0

Milliseconds = NDArray[np.float64]


@dataclass(frozen=True)
class Strip:
    """One candidate: its bars in a box at ``top``, and the places of its median and 99th percentile.

    ``p99``: None where the calls are too few to say, as in the table.

    ``title``: what a pointer is told. ``counts``: of calls in each bin.
    """

    name: str
    top: float
    bars: str
    median: float
    p99: float | None
    title: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Distribution:
    """A picture ``width`` by ``height``; ``x`` is in milliseconds, and each strip's bars span ``span``."""

    batch: int
    x: Axis
    strips: tuple[Strip, ...]
    width: float
    height: float
    span: tuple[float, float]
    edges_ms: tuple[float, ...]


def distribution(batch: int, samples: Mapping[str, Sequence[int]]) -> Distribution | None:
    """Nanoseconds of each candidate as a picture, fastest median first; None without samples."""
    found = {name: np.asarray(own, np.float64) / 1e6 for name, own in samples.items() if len(own)}
    if not found:
        return None
    low = min(float(own.min()) for own in found.values())
    high = max(float(np.quantile(own, 0.999)) for own in found.values())
    axis = logarithmic([low, max(high, low * 1.5)], _LEFT, WIDTH - RIGHT)
    edges = np.geomspace(axis.low, axis.high, _BINS + 1)
    ordered = sorted(found.items(), key=lambda item: float(np.median(item[1])))
    strips = tuple(_strip(row, name, own, edges, axis) for row, (name, own) in enumerate(ordered))
    height = _ROW * len(strips) + _BELOW
    places = tuple(round(float(edge), 6) for edge in edges)
    return Distribution(batch, axis, strips, WIDTH, height, (axis.start, axis.end), places)


def _strip(row: int, name: str, own: Milliseconds, edges: Milliseconds, x: Axis) -> Strip:
    counts, _ = np.histogram(np.clip(own, x.low, x.high), bins=edges)
    median = float(np.median(own))
    p99 = Latency(tuple(round(1e6 * each) for each in own)).summary().p99_ms
    below = "" if p99 is None else f"99 % below {p99:.3g} ms, "
    return Strip(
        name=name,
        top=_ROW * row,
        bars=bars([math.sqrt(count) for count in counts], round(x.end - x.start, 2), _STRIP),
        median=x.place(median),
        p99=None if p99 is None else x.place(min(p99, x.high)),
        title=f"{name}: median {median:.3g} ms, {below}{counted(len(own), 'call')}",
        counts=tuple(int(count) for count in counts),
    )
