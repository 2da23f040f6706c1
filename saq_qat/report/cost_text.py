"""What a training step costs, as text beside the goals."""

from saq_qat.train.cost import StepCost, TrainingCost
from saq_qat_runtime.report.text import NOT_MEASURED, aligned, counted, megabytes, times

__all__ = ["cost_goals", "cost_text"]

_WITH_AVX512 = {"quantized_to_full_precision": 0.87, "saq_to_full_precision": 1.70}
_ELSEWHERE = {"quantized_to_full_precision": 0.97, "saq_to_full_precision": 1.93}
_ANYWHERE = {
    "quantized_to_compiled": 1.05,
    "saq_to_quantized": 2.05,
    "efficient_to_quantized": 1.26,
    "saq_memory_to_quantized": 1.15,
}
_WORDS = {
    "quantized_to_full_precision": "quantization-aware / full precision",
    "quantized_to_compiled": "quantization-aware / full precision, compiled",
    "saq_to_full_precision": "SAQ / full precision",
    "saq_to_quantized": "SAQ / quantization-aware",
    "efficient_to_quantized": "SAQ, efficient / quantization-aware",
    "saq_memory_to_quantized": "memory of SAQ less two copies of the weights / quantization-aware",
}


def cost_goals(cost: TrainingCost) -> dict[str, float]:
    """Largest ratio, by the names of ``TrainingCost.ratios``, that counts as cheap.

    They are for compiled steps on a CPU; those of full precision depend on its vectors, because they are what
    a quantizer costs beside a convolution.
    """
    if not cost.compiled or cost.device != "cpu":
        return {}
    return {**(_WITH_AVX512 if cost.capability.startswith("AVX512") else _ELSEWHERE), **_ANYWHERE}


def cost_text(cost: TrainingCost) -> list[str]:
    """A table of steps, one of ratios and goals, then how it was measured."""
    how = ", compiled" if cost.compiled else ""
    rows: list[tuple[str, StepCost]] = [("full precision", cost.full_precision)]
    if cost.full_precision_compiled is not None:
        rows.append(("full precision, compiled", cost.full_precision_compiled))
    rows += [
        (f"quantization-aware{how}", cost.quantized),
        (f"SAQ, every step{how}", cost.saq),
        (f"SAQ, efficient (tau {cost.tau}){how}", cost.efficient),
    ]
    rows += [(f"{name}, not compiled", step) for name, step in cost.peers.items()]
    one = cost.full_precision.seconds
    cells = [
        (
            name,
            f"{1000 * step.seconds:.1f}",
            f"{1000 * step.low:.1f} .. {1000 * step.high:.1f}",
            times(step.seconds / one),
            megabytes(step.peak_bytes),
        )
        for name, step in rows
    ]
    goals = cost_goals(cost)
    compared = [
        (_WORDS[name], times(ratio), times(goals.get(name)), _met(ratio, goals.get(name)))
        for name, ratio in cost.ratios().items()
    ]
    return [
        *aligned(("step", "ms", "quartiles", "ratio", "peak memory"), cells),
        "",
        *aligned(("comparison", "ratio", "goal", ""), compared),
        "",
        _measured(cost),
    ]


def _measured(cost: TrainingCost) -> str:
    on_cpu = f"{counted(cost.threads, 'thread')} of a CPU with {cost.capability}"
    machine = on_cpu if cost.device == "cpu" else cost.device
    return (
        f"medians of {cost.rounds} rounds of {cost.tau} batches of {cost.batch_size} images, {machine}, "
        f"{cost.memory_format}; on every batch all take a step, in a rotating order"
    )


def _met(ratio: float, goal: float | None) -> str:
    if goal is None:
        return NOT_MEASURED
    return "met" if ratio <= goal else "MISSED"
