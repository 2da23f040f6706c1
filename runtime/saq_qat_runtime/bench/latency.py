"""What is made of measured durations: order statistics, ratios, and what speaks against quoting them."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Latency", "LatencyComparison", "LatencySummary", "compare", "sample_cautions"]

_NANOSECONDS = 1_000_000_000
_SAMPLES_BEYOND = 10  # a percentile with fewer samples beyond it is an anecdote: p99 needs 1000 samples
_ENOUGH_SAMPLES = 100
_DRIFT = 0.1


@dataclass(frozen=True)
class LatencySummary:
    """Latency of one call in milliseconds; None where the samples are too few to say.

    median_low_ms and median_high_ms bound the median with 95 % confidence. calls_per_second counts
    measured calls alone.
    """

    count: int
    mean_ms: float
    deviation_ms: float
    min_ms: float
    median_ms: float
    median_low_ms: float | None
    median_high_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float
    calls_per_second: float


@dataclass(frozen=True)
class Latency:
    """Durations of calls in nanoseconds, in the order they were made; at least one."""

    samples: tuple[int, ...]

    @property
    def median(self) -> float:
        """Median in nanoseconds."""
        return float(statistics.median(self.samples))

    @property
    def variation(self) -> float:
        """Coefficient of variation: the deviation divided by the mean."""
        return statistics.pstdev(self.samples) / max(statistics.fmean(self.samples), 1.0)

    def percentile(self, per_mille: int) -> int | None:
        """The smallest sample, in nanoseconds, with `per_mille` thousandths of all at or below it.

        None with fewer than ten samples beyond it: p90 (900) needs 100 samples, p99 1000, p99.9 (999) 10 000.
        """
        count = len(self.samples)
        if count * (1000 - per_mille) < 1000 * _SAMPLES_BEYOND:
            return None
        return sorted(self.samples)[-(-count * per_mille // 1000) - 1]

    def median_interval(self) -> tuple[int, int] | None:
        """Two samples that hold the true median between them in at least 95 of 100 measurements.

        Ranks of a binomial with probability one half: nothing is assumed of the distribution, only that
        samples are independent. None for fewer than six samples.
        """
        rank = _lower_rank(len(self.samples))
        if rank is None:
            return None
        ordered = sorted(self.samples)
        return ordered[rank], ordered[-1 - rank]

    def summary(self) -> LatencySummary:
        """The conventional figures."""
        interval = self.median_interval()
        return LatencySummary(
            count=len(self.samples),
            mean_ms=statistics.fmean(self.samples) / 1e6,
            deviation_ms=statistics.pstdev(self.samples) / 1e6,
            min_ms=min(self.samples) / 1e6,
            median_ms=self.median / 1e6,
            median_low_ms=None if interval is None else interval[0] / 1e6,
            median_high_ms=None if interval is None else interval[1] / 1e6,
            p90_ms=_milliseconds(self.percentile(900)),
            p95_ms=_milliseconds(self.percentile(950)),
            p99_ms=_milliseconds(self.percentile(990)),
            p999_ms=_milliseconds(self.percentile(999)),
            max_ms=max(self.samples) / 1e6,
            calls_per_second=len(self.samples) * _NANOSECONDS / max(sum(self.samples), 1),
        )


@dataclass(frozen=True)
class LatencyComparison:
    """Latencies from one run in which the functions took turns.

    speedups: median of the baseline divided by the function's own.
    """

    baseline: str
    latencies: dict[str, Latency]
    speedups: dict[str, float]


def compare(latencies: Mapping[str, Latency], baseline: str) -> LatencyComparison:
    """How much faster each is than `baseline`, by their medians; they must come from one run in turns."""
    reference = latencies[baseline].median
    speedups = {name: reference / max(latency.median, 1.0) for name, latency in latencies.items()}
    return LatencyComparison(baseline, dict(latencies), speedups)


def sample_cautions(latency: Latency) -> tuple[str, ...]:
    """What the samples alone say against quoting them: too few, or a median that moved."""
    found = []
    count, half = len(latency.samples), len(latency.samples) // 2
    if count < _ENOUGH_SAMPLES:
        found.append(
            f"only {count} sample{'' if count == 1 else 's'}: quote the median alone, with its interval"
        )
    if half >= _SAMPLES_BEYOND:
        early, late = (statistics.median(part) for part in (latency.samples[:half], latency.samples[half:]))
        if abs(late - early) > _DRIFT * early:
            found.append(
                f"not steady: the median moved by {late / early - 1:+.0%} between first and second half"
            )
    return tuple(found)


def _lower_rank(count: int) -> int | None:
    """Largest index r with P(Binomial(count, 1/2) <= r) <= 2.5 %; None if there is none."""
    # Beyond eight deviations below the mean, nothing of the tail is left to add.
    rank = max(0, round(count / 2 - 4 * math.sqrt(count)))
    tail, found = 0.0, None
    while rank < count:
        log_ways = math.lgamma(count + 1) - math.lgamma(rank + 1) - math.lgamma(count - rank + 1)
        tail += math.exp(log_ways - count * math.log(2))
        if tail > 0.025:
            break
        found, rank = rank, rank + 1
    return found


def _milliseconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e6
