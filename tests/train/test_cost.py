import pytest
from pytest import MonkeyPatch
from torch import Tensor

from saq_qat.errors import RecipeError
from saq_qat.optim.passes import MicroBatch, Objective
from saq_qat.recipe.load import parse_recipe
from saq_qat.train.cost import measure_training_cost

RECIPE = """
version: 1
name: cost
model: {name: resnet20}
data: {kind: synthetic, image_size: 16, train_size: 32}
quant: {weight: {bits: 4}, activation: {bits: 4}}
train:
  batch_size: 16
  optimizer: {kind: sgd}
  stages:
    - {kind: quantized, epochs: 1, lr: 0.1, method: {kind: saq, rho: 0.3, efficient: {tau: 2}}}
    - {kind: statistics}
"""


def test_four_steps_are_timed_side_by_side_over_whole_cycles(monkeypatch: MonkeyPatch) -> None:
    done: list[tuple[int, int]] = []
    passes: list[int] = []
    backward = Objective.backward

    def counted(self: Objective, part: MicroBatch, *, synchronise: bool, perturbed: bool = False) -> Tensor:
        passes.append(len(part.images))
        return backward(self, part, synchronise=synchronise, perturbed=perturbed)

    monkeypatch.setattr(Objective, "backward", counted)
    cost = measure_training_cost(
        parse_recipe(RECIPE, "cost"), rounds=2, on_round=lambda now, total: done.append((now, total))
    )
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert (cost.tau, cost.batch_size, cost.rounds) == (2, 16, 2)
    assert min(cost.float_step, cost.qat_step, cost.saq_step, cost.efficient_step) > 0
    # A cycle of two: two float passes, two plain ones, four of SAQ, three with efficient training.
    assert len(passes) == 3 * (2 + 2 + 4 + 3)


def test_a_recipe_that_quantizes_nothing_is_refused() -> None:
    text = RECIPE.replace("quant: {weight: {bits: 4}, activation: {bits: 4}}", "quant: null")
    text = text.replace("kind: quantized", "kind: float").replace(
        "saq, rho: 0.3, efficient: {tau: 2}", "plain"
    )
    with pytest.raises(RecipeError, match="section quant"):
        measure_training_cost(parse_recipe(text, "cost"))
