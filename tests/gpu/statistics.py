"""Paired differences over seeds: their mean, a bootstrap interval and a t test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Paired", "paired"]

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Paired:
    """``a - b`` of pairs.

    Attributes:
        low, high: of the 95 % percentile bootstrap interval of the mean.
        t: the mean over its standard error; degrees: of freedom. p: two-sided.
    """

    count: int
    mean: float
    low: float
    high: float
    t: float
    p: float


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Compare what was measured in pairs; both of equal length, two or more."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    count = len(difference)
    mean = float(difference.mean())
    drawn = np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))
    low, high = np.percentile(difference[drawn].mean(axis=1), [2.5, 97.5]).tolist()
    error = float(difference.std(ddof=1)) / math.sqrt(count)
    t = mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
    return Paired(count, mean, low, high, t, _two_sided(t, count - 1))


def _two_sided(t: float, degrees: int) -> float:
    """Probability of a |t| at least as large: Student's density, integrated by Simpson's rule.

    With t = sqrt(degrees) tan(a) the density becomes cos(a)^(degrees - 1), on a finite interval.
    """
    if math.isinf(t):
        return 0.0
    edge = math.atan(abs(t) / math.sqrt(degrees))
    inside, whole = (_simpson(degrees - 1, edge_of) for edge_of in (edge, math.pi / 2))
    return 1.0 - inside / whole


def _simpson(power: int, edge: float, pieces: int = 2000) -> float:
    points = np.linspace(0.0, edge, pieces + 1)
    values = np.cos(points) ** power
    weights = np.ones(pieces + 1)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return float((weights * values).sum() * edge / pieces / 3)
