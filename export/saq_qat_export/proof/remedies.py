"""A failed proof in words, the same in every command, and what to do about it where the cause is known."""

from collections.abc import Iterable

from saq_qat_export.proof.ladder import FAKE_QUANT_RUNG, Rung
from saq_qat_runtime.bundle.records import RungRecord

__all__ = ["failed_checks", "flip_remedy"]

_FLIPS = (
    "answers differ because the biases were rounded to integers after training, which had no deploy stage: "
    "such rounding alone changed 5.2 % of the answers of a 4-bit Vision Transformer and 19.8 % of a 4-bit "
    "MobileNetV2, against 0.1 % and 0.3 % with the biases left as they were. End train.stages with "
    "{kind: deploy, epochs: 1, lr: X}, X at most a tenth of the last, and training learns rounded biases."
)


def failed_checks(rungs: Iterable[Rung | RungRecord]) -> list[str]:
    """Each hard comparison that failed, with what it found; a proof without one has passed."""
    return [
        f"{rung.name} ({rung.detail or rung.mismatches})" for rung in rungs if rung.hard and not rung.passed
    ]


def flip_remedy(rungs: Iterable[Rung | RungRecord], *, biases_learned: bool) -> str:
    """The cause of too many changed answers and its remedy; empty if there are few, or another cause.

    Args:
        biases_learned: the network went through a deploy stage, in which biases are already rounded.
    """
    failed = any(rung.name == FAKE_QUANT_RUNG and not rung.passed for rung in rungs)
    return _FLIPS if failed and not biases_learned else ""
