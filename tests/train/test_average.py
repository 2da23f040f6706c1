"""The average of the weights: its arithmetic, what judges and ships it, and going on with it bit for bit."""

from pathlib import Path

import pytest
import torch
from torch import nn

from saq_qat.errors import RecipeError
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.average import WeightAverage
from saq_qat.train.checkpoint import read_checkpoint
from saq_qat.train.distributed import Processes
from saq_qat.train.evaluate import evaluate_both
from saq_qat.train.log import read_log
from saq_qat.train.progress import Progress
from saq_qat.train.restore import restore
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from tests.train.stopping import sigterm_at

RECIPE = """
version: 1
name: averaged
seed: 3
model: {name: "tests.train.small_network:SmallNetwork"}
data: {kind: digits, image_size: 8, augmentation: crop_flip, train_limit: 80, val_limit: 40}
quant:
  weight: {kind: lsq, bits: 4}
  activation: {kind: lsq, bits: 4, offset: signed}
  calibration_batches: 1
train:
  batch_size: 16
  optimizer: {kind: sgd}
  checkpoint_steps: 3
  ema: {decay: 0.9}
  stages:
    - {kind: float, epochs: 1, lr: 0.05, warmup_epochs: 0.5}
    - {kind: quantized, epochs: 2, lr: 0.02, method: {kind: saq, rho: 0.3, efficient: {tau: 3}}}
    - {kind: statistics, batches: 2}
    - {kind: deploy, epochs: 1, lr: 0.001}
"""


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, "averaged", overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_training(recipe(), folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for which in ("last", "best")
        for path in sorted((folder / "checkpoints" / which).glob("*.safetensors"))
    }


class Small(nn.Module):
    """Weights, one that is not trained, a clip level, statistics, constants that hold infinity."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.level = (
            nn.Linear(3, 2),
            nn.BatchNorm1d(2),
            nn.Parameter(torch.tensor(2.0)),
        )
        self.fixed = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.linear(x)) * self.level
        return result


def test_the_average_is_the_recurrence_in_float64() -> None:
    torch.manual_seed(0)
    network = Small()
    average = WeightAverage(network, 0.6)
    expected = {name: tensor.double() for name, tensor in network.state_dict().items()}
    for steps in range(12):
        with torch.no_grad():
            network(torch.randn(8, 3))
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter))
        average.update(steps)
        decay = min(0.6, (1 + steps) / (10 + steps))
        for name, tensor in network.state_dict().items():
            if name in ("norm.num_batches_tracked", "mask", "fixed"):
                expected[name] = tensor.double()
            else:
                expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    found = average.network.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-6, atol=1e-6, msg=name)
    assert found["norm.num_batches_tracked"] == 12
    assert not torch.equal(found["linear.weight"], network.linear.weight)


def test_at_first_the_start_is_soon_forgotten() -> None:
    average = WeightAverage(Small(), 0.999)
    assert average.decay_after(0) == 0.1
    assert [average.decay_after(steps) < 0.999 for steps in (8_000, 8_989, 8_990)] == [True, True, False]


def test_last_holds_the_average_and_the_weights_behind_it_best_the_average_alone(finished: Path) -> None:
    last, best = (read_checkpoint(finished / "checkpoints" / which) for which in ("last", "best"))
    behind = {name: tensor for name, tensor in last.training.items() if name.startswith("weights/")}
    assert {name.removeprefix("weights/") for name in behind} == set(last.model)
    assert any(not torch.equal(behind["weights/" + name], tensor) for name, tensor in last.model.items())
    assert not best.training


def test_what_is_judged_is_what_is_restored_and_exported(finished: Path) -> None:
    restored = restore(finished)
    assert restore(finished, "last", restored.images).images is restored.images
    model = read_checkpoint(finished / "checkpoints" / "last").model
    state = restored.network.state_dict()
    assert all(torch.equal(state[name], model[name]) for name in model)
    one = Processes(0, 1, torch.device("cpu"))
    found, deployed = evaluate_both(restored.network, restored.plan, recipe(), restored.images, one)
    logged = [line for line in read_log(finished / "log.jsonl") if line["event"] == "epoch"][-1]
    assert deployed is not None
    assert (logged["top1"], logged["deploy_top1"]) == (found.top1, deployed.top1)
    assert logged["val_loss"] == pytest.approx(found.loss, rel=1e-6)
    levels = {
        n: m.alpha.abs().item() for n, m in restored.network.named_modules() if isinstance(m, Quantizer)
    }
    assert logged["clip_levels"] == pytest.approx(levels, abs=1e-6)


def test_the_next_stage_begins_where_the_average_ended(tmp_path: Path) -> None:
    """A statistics stage moves nothing else, so its weights are those of the average before."""
    short = recipe("train.stages=[{kind: float, epochs: 2, lr: 0.05}, {kind: statistics}]", "quant=null")
    kept: dict[str, torch.Tensor] = {}

    def note(state: Progress) -> None:
        last = tmp_path / "checkpoints" / "last"
        if state.stage == "statistics" and not kept:
            kept.update(read_checkpoint(last).model)

    run_training(short, tmp_path, on_progress=note)
    found = read_checkpoint(tmp_path / "checkpoints" / "last").model
    assert kept
    assert all(torch.equal(kept[name], found[name]) for name in kept if name.endswith(("weight", "bias")))


@pytest.mark.parametrize("step", [5, 8, 17])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(finished: Path, tmp_path: Path, step: int) -> None:
    with pytest.raises(TrainingStoppedError):
        run_training(recipe(), tmp_path, on_progress=sigterm_at(step))
    run_training(recipe(), tmp_path, resume=True)
    assert files(tmp_path) == files(finished)


def test_resuming_a_finished_run_changes_nothing(finished: Path) -> None:
    before = files(finished)
    run_training(recipe(), finished, resume=True)
    assert files(finished) == before


def test_averaging_changes_nothing_that_the_weights_do(tmp_path: Path) -> None:
    """Within a stage the weights go where they would go without an average."""
    stages = "train.stages=[{kind: float, epochs: 2, lr: 0.05}]"
    run_training(recipe(stages, "quant=null"), tmp_path / "with")
    run_training(recipe(stages, "quant=null", "train.ema=null"), tmp_path / "without")
    averaged, plain = (
        read_checkpoint(tmp_path / run / "checkpoints" / "last") for run in ("with", "without")
    )
    for name, tensor in plain.model.items():
        assert torch.equal(averaged.training["weights/" + name], tensor)


@pytest.mark.parametrize("decay", ["1.0", "-0.1"])
def test_a_decay_that_never_moves_or_never_stays_is_refused(decay: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.ema\.decay: must be (less than 1|at least 0)"):
        recipe(f"train.ema.decay={decay}")
