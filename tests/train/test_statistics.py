"""The statistics stage: what it computes, where it stands, and going on after it was stopped."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saq_qat.data.batches import train_batches
from saq_qat.data.open import open_data
from saq_qat.errors import RecipeError
from saq_qat.quant.numerics.statistics import averaged_statistics, tracking_norms
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import read_checkpoint
from saq_qat.train.log import read_log
from saq_qat.train.progress import Progress
from saq_qat.train.restore import restore
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError

RECIPE = """
version: 1
name: statistics
seed: 3
model: {name: "tests.train.small_network:SmallNetwork"}
data: {kind: digits, image_size: 8, augmentation: crop_flip, train_limit: 64, val_limit: 40}
quant: {weight: {bits: 4}, activation: {bits: 4}, calibration_batches: 1}
train:
  batch_size: 16
  optimizer: {kind: sgd}
  stages:
    - {kind: float, epochs: 1, lr: 0.05}
    - {kind: quantized, epochs: 1, lr: 0.02, method: {kind: saq, rho: 0.3}}
    - {kind: statistics, batches: 6}
    - {kind: deploy, epochs: 1, lr: 0.001}
"""
STEPS = 12


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, "statistics", overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_training(recipe(), folder)
    return folder


def ended_after(stages: str, folder: Path, *overrides: str) -> Path:
    run_training(recipe(f"train.stages={stages}", *overrides), folder)
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ended after its statistics stage."""
    stages = "[{kind: quantized, epochs: 1, lr: 0.02}, {kind: statistics, batches: 6}]"
    return ended_after(stages, tmp_path_factory.mktemp("runs") / "measured")


def seen_by_norms(network: nn.Module, batches: list[Tensor]) -> dict[str, list[NDArray[np.float64]]]:
    """Input of each BatchNorm in each pass, (channels, elements), while all normalise by the batch."""
    seen: dict[str, list[NDArray[np.float64]]] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.register_forward_pre_hook(
                lambda _m, args, name=name: seen.setdefault(name, []).append(
                    args[0].double().transpose(0, 1).flatten(1).numpy()
                )
            )
    with torch.no_grad():
        for batch in batches:
            network(batch)
    return seen


def batches_of(run: Recipe, epoch: int, count: int) -> list[Tensor]:
    """The first batches from ``epoch`` on."""
    images = open_data(run.data, run.seed)
    found: list[Tensor] = []
    while len(found) < count:
        found += [x for x, _ in train_batches(images, batch_size=16, seed=run.seed, epoch=epoch)]
        epoch += 1
    return found[:count]


def assert_means_over(passes: list[Tensor], run: Path) -> None:
    restored = restore(run)
    state = {name: value.double().numpy() for name, value in restored.network.state_dict().items()}
    seen = seen_by_norms(restored.network, passes)
    assert len(seen) == 2 and {len(each) for each in seen.values()} == {len(passes)}
    for name, each in seen.items():
        mean = np.mean([x.mean(axis=1) for x in each], axis=0)
        variance = np.mean([x.var(axis=1, ddof=1) for x in each], axis=0)
        np.testing.assert_allclose(state[f"{name}.running_mean"], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state[f"{name}.running_var"], variance, rtol=1e-4, atol=1e-6)


def test_statistics_are_means_of_the_batches_means_and_unbiased_variances(measured: Path) -> None:
    """More batches than an epoch has, from the epoch after those of the stage before."""
    assert_means_over(batches_of(recipe(), epoch=1, count=6), measured)


def test_each_micro_batch_counts_once(tmp_path: Path) -> None:
    stages = "[{kind: float, epochs: 1, lr: 0.02}, {kind: statistics, batches: 2}]"
    ended_after(stages, tmp_path, "train.micro_batch_size=4", "quant=null")
    passes = [part for x in batches_of(recipe(), epoch=1, count=2) for part in torch.split(x, 4)]
    assert_means_over(passes, tmp_path)


def test_only_running_statistics_move(finished: Path, tmp_path: Path) -> None:
    """The run is stopped in the statistics stage: its checkpoint is that of the stage before."""

    def stop(state: Progress) -> None:
        if state.stage == "statistics" and state.batch == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingStoppedError):
        run_training(recipe(), tmp_path, on_progress=stop)
    before = read_checkpoint(tmp_path / "checkpoints" / "last")
    assert (before.position.stage, before.position.epoch, before.position.step) == (1, 1, 8)

    def stop_after(state: Progress) -> None:
        if state.stage == "deploy" and state.batch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(recipe(), tmp_path, resume=True, on_progress=stop_after)
    after = read_checkpoint(tmp_path / "checkpoints" / "last")
    assert (after.position.stage, after.position.epoch, after.position.step) == (2, 1, 8)
    moved = {name for name, value in before.model.items() if not torch.equal(value, after.model[name])}
    kinds = {"running_mean", "running_var", "num_batches_tracked"}
    assert moved and {name.rsplit(".", 1)[1] for name in moved} == kinds
    run_training(recipe(), tmp_path, resume=True)
    assert_same(tmp_path, finished)


def assert_same(run: Path, other: Path) -> None:
    for which in ("last", "best"):
        for name in ("model.safetensors", "optimizer.safetensors"):
            path = Path("checkpoints", which, name)
            assert (run / path).read_bytes() == (other / path).read_bytes(), path
    a, b = (
        [
            {
                key: value
                for key, value in line.items()
                if key not in ("images_per_second", "seconds", "step_seconds", "waited")
            }
            for line in read_log(each / "log.jsonl")
        ]
        for each in (run, other)
    )
    assert a == b


def test_the_stage_is_judged_and_logged_as_others_and_makes_no_step(finished: Path) -> None:
    epochs = [line for line in read_log(finished / "log.jsonl") if line["event"] == "epoch"]
    assert [line["stage"] for line in epochs] == ["float", "quantized", "statistics", "deploy"]
    assert [line["form"] for line in epochs] == ["float", "quantized", "quantized", "deploy"]
    assert [line["step"] for line in epochs] == [4, 8, 8, STEPS]
    assert epochs[2]["loss"] > 0 and "deploy_top1" in epochs[2]


def test_progress_counts_batches_of_the_stage_and_steps_of_the_run(tmp_path: Path) -> None:
    shown: list[Progress] = []
    stages = "[{kind: float, epochs: 1, lr: 0.05}, {kind: statistics, batches: 3}]"
    run_training(recipe(f"train.stages={stages}", "quant=null"), tmp_path, on_progress=shown.append)
    found = [
        (p.epoch, p.epochs, p.batch, p.batches, p.step, p.steps) for p in shown if p.stage == "statistics"
    ]
    assert found == [(1, 1, batch, 3, 4, 4) for batch in (1, 2, 3, 3)]
    assert shown[-1].top1 is not None


class Bare(nn.Sequential):
    """A network without BatchNorm."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))


def test_a_network_without_batch_norm_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    stages = "[{kind: float, epochs: 1, lr: 0.05}, {kind: statistics}]"
    bare = recipe(f"model.name={__name__}:Bare", f"train.stages={stages}", "quant=null")
    with pytest.raises(RecipeError, match=r"train\.stages\.1: .*the network keeps none"):
        run_training(bare, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("training", [True, False])
def test_averaging_gives_modes_and_momenta_back(training: bool) -> None:
    norm, frozen = nn.BatchNorm1d(2, momentum=0.3), nn.BatchNorm1d(2, track_running_stats=False)
    network = nn.Sequential(norm, nn.Dropout(), frozen).train(training)
    assert tracking_norms(network) == [norm]
    with averaged_statistics(network):
        assert (norm.training, norm.momentum) == (True, None)
        assert not network[1].training and not frozen.training
    assert (norm.momentum, frozen.momentum) == (0.3, 0.1)
    assert all(module.training is training for module in network.modules())
