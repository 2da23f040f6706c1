"""A failed proof in words, the same in every command, and what to do about it where the cause is known."""

from collections.abc import Iterable

from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.predictions import FAKE_QUANT_COMPARISON
from saq_qat_runtime.bundle.gate import ComparisonRecord

__all__ = ["failed_checks", "flip_fix"]

_FLIPS = (
    "answers differ because the biases were rounded to integers after training, which had no deploy stage. "
    "End train.stages with {kind: deploy, epochs: 1, lr: X}, X at most a tenth of the last, and training "
    "learns rounded biases."
)


def failed_checks(comparisons: Iterable[Comparison | ComparisonRecord]) -> list[str]:
    """Each hard comparison that failed, with what it found; a proof without one has passed."""
    return [
        f"{comparison.name} ({comparison.detail or comparison.mismatches})"
        for comparison in comparisons
        if comparison.hard and not comparison.passed
    ]


def flip_fix(comparisons: Iterable[Comparison | ComparisonRecord], *, biases_learned: bool) -> str:
    """The cause of too many changed answers and its fix; empty if there are few, or another cause.

    Args:
        biases_learned: the network went through a deploy stage, in which biases are already rounded.
    """
    failed = any(
        comparison.name == FAKE_QUANT_COMPARISON and not comparison.passed for comparison in comparisons
    )
    return _FLIPS if failed and not biases_learned else ""
