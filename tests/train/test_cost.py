"""What training steps cost, measured side by side."""

from collections.abc import Sequence

import pytest
from pytest import MonkeyPatch
from torch import Tensor

from saq_qat.errors import RecipeError
from saq_qat.optim.passes import MicroBatch, Objective
from saq_qat.recipe.load import parse_recipe
from saq_qat.train.cost import measure_training_cost
from tests.train.small_network import SmallNetwork

RECIPE = """
version: 1
name: cost
model: {name: "tests.train.small_network:SmallNetwork"}
data: {kind: synthetic, image_size: 16, train_size: 32}
quant: {weight: {bits: 4}, activation: {bits: 4}}
train:
  batch_size: 16
  optimizer: {kind: sgd}
  stages:
    - {kind: quantized, epochs: 1, lr: 0.1, method: {kind: saq, rho: 0.3, efficient: {tau: 2}}}
    - {kind: statistics}
"""


def counted(monkeypatch: MonkeyPatch) -> list[int]:
    """Images of every pass from now on."""
    passes: list[int] = []
    gradients = Objective.gradients

    def count(
        self: Objective, part: MicroBatch, inputs: Sequence[Tensor], *, in_float32: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        passes.append(len(part.images))
        return gradients(self, part, inputs, in_float32=in_float32)

    monkeypatch.setattr(Objective, "gradients", count)
    return passes


def test_steps_are_timed_side_by_side_over_whole_cycles(monkeypatch: MonkeyPatch) -> None:
    done: list[tuple[int, int]] = []
    passes = counted(monkeypatch)
    cost = measure_training_cost(
        parse_recipe(RECIPE, "cost", ["train.compile=off", "model.pretrained=not/there.safetensors"]),
        rounds=2,
        on_round=lambda now, total: done.append((now, total)),
    )
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (cost.tau, cost.batch_size, cost.rounds) == (2, 16, 2)
    assert cost.full_precision_compiled is None and not cost.compiled
    steps = (cost.full_precision, cost.quantized, cost.saq, cost.efficient)
    assert all(0 < step.low <= step.seconds <= step.high for step in steps)
    # A cycle of two: two float passes, two plain ones, four of SAQ, three with efficient training; and one
    # step of each for its memory, the first of a cycle.
    assert len(passes) == 4 * (2 + 2 + 4 + 3) + (1 + 1 + 2 + 2)


def test_memory_is_that_of_tensors_and_counts_activations(monkeypatch: MonkeyPatch) -> None:
    small, large = (
        measure_training_cost(parse_recipe(RECIPE, "cost", ["train.compile=off", size]), rounds=1)
        for size in ("train.batch_size=8", "train.batch_size=32")
    )
    parameters = sum(parameter.numel() for parameter in SmallNetwork(10).parameters())
    levels = small.quantized.weight_bytes // 4 - parameters
    assert small.quantized.weight_bytes == large.quantized.weight_bytes and 0 < levels < 20
    assert large.quantized.peak_bytes > 2 * small.quantized.peak_bytes
    held = 2 * small.quantized.weight_bytes  # the parameters and their momenta
    assert held < small.full_precision.peak_bytes < small.quantized.peak_bytes


def test_a_recipe_that_quantizes_nothing_is_refused() -> None:
    text = RECIPE.replace("quant: {weight: {bits: 4}, activation: {bits: 4}}", "quant: null")
    text = text.replace("kind: quantized", "kind: float").replace(
        "saq, rho: 0.3, efficient: {tau: 2}", "plain"
    )
    with pytest.raises(RecipeError, match="section quant"):
        measure_training_cost(parse_recipe(text, "cost"))
