"""Costs of training steps beside their targets."""

from saq_qat.report.cost_text import cost_text
from saq_qat.train.cost import TrainingCost


def test_a_missed_target_is_marked_and_a_met_one_too() -> None:
    lines = cost_text(TrainingCost(0.1, 0.13, 0.3, 0.15, tau=4, batch_size=8, rounds=6, device="cpu"))
    found = {line.split("  ")[0]: line.split()[-1] for line in lines[1:5]}
    assert found["quantization-aware"] == "met"
    assert found["SAQ, every step"] == "MISSED"
    assert found["SAQ, efficient (tau 4)"] == "met"
    assert "1.30x" in lines[2] and "1.35x" in lines[2]
    assert "6 rounds of 4 batches of 8 images" in lines[-1]
