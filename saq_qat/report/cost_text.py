"""What a training step costs, as text beside the targets."""

from saq_qat.report.text import aligned, times
from saq_qat.train.cost import TrainingCost

__all__ = ["COST_TARGETS", "cost_text"]

COST_TARGETS = {"qat_to_float": 1.35, "saq_to_qat": 2.1, "efficient_to_qat": 1.3}
"""Largest ratio of each property of ``TrainingCost`` that counts as cheap."""


def cost_text(cost: TrainingCost) -> list[str]:
    """A table of steps and ratios, then how it was measured."""
    rows = [
        ("full precision", cost.float_step, "", None, None),
        (
            "quantization-aware",
            cost.qat_step,
            "full precision",
            cost.qat_to_float,
            COST_TARGETS["qat_to_float"],
        ),
        ("SAQ, every step", cost.saq_step, "quantization-aware", cost.saq_to_qat, COST_TARGETS["saq_to_qat"]),
        (
            f"SAQ, efficient (tau {cost.tau})",
            cost.efficient_step,
            "quantization-aware",
            cost.efficient_to_qat,
            COST_TARGETS["efficient_to_qat"],
        ),
    ]
    header = ("step", "ms", "over", "ratio", "target", "")
    cells = [
        (name, f"{1000 * seconds:.1f}", over, times(ratio), times(target), _met(ratio, target))
        for name, seconds, over, ratio, target in rows
    ]
    measured = (
        f"medians of {cost.rounds} rounds of {cost.tau} batches of {cost.batch_size} images, {cost.device}; "
        "on every batch all four take a step, in a rotating order"
    )
    return [*aligned(header, cells), "", measured]


def _met(ratio: float | None, target: float | None) -> str:
    if ratio is None or target is None:
        return ""
    return "met" if ratio <= target else "MISSED"
