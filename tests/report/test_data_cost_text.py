"""What batches cost, in words."""

from saq_qat.data.cost import DataCost
from saq_qat.report.data_cost_text import data_cost_text


def test_an_epoch_and_the_steps_that_hide_a_batch_are_told() -> None:
    cost = DataCost(0.5, 0.002, 50, 390, 128, workers=0, device="cpu")
    lines = data_cost_text(cost)
    assert lines[0] == "a batch of 128 images: 2.00 ms"
    assert "images/s: 64,000" in lines
    assert "an epoch of 390 batches: 0.78 s" in lines
    assert "a twentieth of a training step of 40 ms, more of shorter ones" in lines
    assert "the training process itself" in lines[-1]
    workers = data_cost_text(DataCost(0.5, 0.002, 50, 390, 128, workers=3, device="cpu"))
    assert "3 loader processes" in workers[-1]
