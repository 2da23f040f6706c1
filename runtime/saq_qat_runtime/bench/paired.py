"""Ratios of what was measured in turns."""

from dataclasses import dataclass

from saq_qat_runtime.bench.interleave import Latency

__all__ = ["ENOUGH_PAIRS", "Ratio", "paired_ratio"]

ENOUGH_PAIRS = 5
"""Fewer turns give no ratio."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast: the median over turns of the other's time by the own, both of the same turn.

    Attributes:
        low, high: 95 % interval of that median; None for fewer than six turns.
    """

    median: float
    low: float | None
    high: float | None


def paired_ratio(theirs: Latency, own: Latency) -> Ratio | None:
    """Turn by turn, because a turn's neighbours share what the machine did at that moment.

    None for fewer than ``ENOUGH_PAIRS`` turns.
    """
    if len(own.samples) < ENOUGH_PAIRS:
        return None
    # Order statistics hold for any quantity; these samples are ratios, in millionths.
    paired = Latency(
        tuple(round(1e6 * a / max(b, 1)) for a, b in zip(theirs.samples, own.samples, strict=True))
    )
    interval = paired.median_interval()
    low, high = (None, None) if interval is None else (interval[0] / 1e6, interval[1] / 1e6)
    return Ratio(paired.median / 1e6, low, high)
