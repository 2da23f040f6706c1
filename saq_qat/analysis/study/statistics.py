"""Statistics of few seeds: means, and differences paired by seed with two kinds of 95 % interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CONFIDENCE", "METHOD", "Interval", "PairedDifference", "Spread", "paired_difference", "spread_of"]

CONFIDENCE = 0.95
_RESAMPLES = 9999
_SEED = 0

METHOD = (
    "Differences are paired by seed. bootstrap: percentile interval of the mean difference, "
    f"{_RESAMPLES} resamples of the pairs; it cannot leave their range, and is too narrow for few seeds. "
    "t: paired t-test, two-sided, and its interval, which take the differences to be of one normal "
    "distribution. One pair of seeds has no interval."
)


@dataclass(frozen=True)
class Interval:
    """An interval of 95 % confidence."""

    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """A quantity over the seeds of an arm.

    Attributes:
        n: seeds that have it.
        mean: over them.
        deviation: standard deviation with n - 1; None of one seed.
    """

    n: int
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two arms over the seeds that both have.

    Attributes:
        seeds: of the pairs, ascending; ``differences`` stand in their order.
        missing: seeds that only one arm has a number for; they take no part.
        mean: of the differences.
        bootstrap: percentile interval; None with fewer than two pairs.
        t, p: statistic and two-sided p-value of the paired t-test; None with fewer than two pairs, or where
            all differences are equal, so that they have no spread to be held against.
        t_interval: of the mean, by the same test.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    missing: tuple[int, ...]
    mean: float | None
    bootstrap: Interval | None
    t: float | None
    p: float | None
    t_interval: Interval | None


def spread_of(values: Sequence[float]) -> Spread | None:
    """Mean and deviation; None of nothing."""
    if not values:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(np.mean(values)), deviation)


def paired_difference(of: Mapping[int, float], against: Mapping[int, float]) -> PairedDifference:
    """``of`` minus ``against`` seed by seed; both map seeds to a quantity."""
    seeds = tuple(sorted(of.keys() & against.keys()))
    missing = tuple(sorted(of.keys() ^ against.keys()))
    differences = tuple(of[seed] - against[seed] for seed in seeds)
    mean = float(np.mean(differences)) if differences else None
    if len(differences) < 2:
        return PairedDifference(seeds, differences, missing, mean, None, None, None, None)
    t, p, t_interval = _paired_t([of[s] for s in seeds], [against[s] for s in seeds])
    return PairedDifference(seeds, differences, missing, mean, _bootstrap(differences), t, p, t_interval)


def _bootstrap(differences: Sequence[float]) -> Interval:
    from scipy.stats import bootstrap

    found = bootstrap(
        (differences,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def _paired_t(
    of: Sequence[float], against: Sequence[float]
) -> tuple[float, float, Interval] | tuple[None, None, None]:
    from scipy.stats import ttest_rel

    differences = np.subtract(of, against)
    scale = max(map(abs, (*of, *against)))
    if float(np.ptp(differences)) <= 1e-12 * max(scale, 1e-300):
        return None, None, None
    found = ttest_rel(of, against)
    interval = found.confidence_interval(CONFIDENCE)
    values = (float(found.statistic), float(found.pvalue), float(interval.low), float(interval.high))
    if not all(map(math.isfinite, values)):
        return None, None, None
    return values[0], values[1], Interval(values[2], values[3])
