"""Costs of training steps beside their goals."""

from dataclasses import replace

from saq_qat.report.cost_text import cost_goals, cost_text
from saq_qat.train.cost import StepCost, TrainingCost


def step(seconds: float, peak_bytes: int = 1000) -> StepCost:
    return StepCost(seconds, 0.9 * seconds, 1.2 * seconds, peak_bytes, weight_bytes=100)


COST = TrainingCost(
    full_precision=step(0.1),
    full_precision_compiled=step(0.08),
    quantized=step(0.083),
    saq=step(0.175, 1300),
    efficient=step(0.1),
    tau=4,
    batch_size=8,
    rounds=6,
    threads=2,
    device="cpu",
    capability="AVX512_AMX",
    compiled=True,
    memory_format="channels_last",
)


def test_a_missed_goal_is_marked_and_a_met_one_too() -> None:
    lines = cost_text(COST)
    found = {line.split("  ")[0]: line.split()[-1] for line in lines[8:-2]}
    assert found == {
        "quantization-aware / full precision": "met",
        "quantization-aware / full precision, compiled": "met",
        "SAQ / full precision": "MISSED",
        "SAQ / quantization-aware": "MISSED",
        "SAQ, efficient / quantization-aware": "met",
        "memory of SAQ less two copies of the weights / quantization-aware": "met",
    }
    assert "90.0 .. 120.0" in lines[1] and "0.83x" in lines[3]
    assert "2 threads of a CPU with AVX512_AMX" in lines[-1]
    assert "6 rounds of 4 batches of 8 images" in lines[-1]


def test_memory_counts_beyond_two_copies_of_the_weights() -> None:
    assert COST.ratios()["saq_memory_to_quantized"] == (1300 - 200) / 1000


def test_goals_of_full_precision_depend_on_the_vectors_and_are_for_compiled_steps() -> None:
    assert cost_goals(replace(COST, capability="AVX2"))["saq_to_full_precision"] == 1.93
    assert cost_goals(COST)["saq_to_full_precision"] == 1.70
    eager = replace(COST, compiled=False, full_precision_compiled=None)
    assert cost_goals(eager) == {} and "quantized_to_compiled" not in eager.ratios()
    assert [line.split()[-1] for line in cost_text(eager)[7:-2]] == ["-"] * 5
