"""A training with everything that blurs its images and labels, and going on with it bit for bit."""

from pathlib import Path

import pytest

from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import read_checkpoint
from saq_qat.train.log import read_log
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from tests.train.stopping import sigterm_at

TEACHER = """
version: 1
name: teacher
model: {name: "tests.train.test_teacher:Linear"}
data: {kind: digits, image_size: 8, train_limit: 80, val_limit: 20}
train:
  batch_size: 16
  optimizer: {kind: sgd}
  stages: [{kind: float, epochs: 6, lr: 0.05}]
"""
RECIPE = """
version: 1
name: mixed
seed: 3
model: {name: "tests.train.small_network:SmallNetwork"}
data:
  kind: digits
  image_size: 8
  augmentation: crop_flip
  rand_augment: {operations: 1, magnitude: 5}
  random_erasing: {probability: 0.5}
  train_limit: 80
  val_limit: 20
quant: {weight: {bits: 4}, activation: {bits: 4}, calibration_batches: 1}
train:
  batch_size: 16
  micro_batch_size: 8
  optimizer: {kind: sgd, max_norm: 1.0}
  label_smoothing: 0.1
  mixing: {mixup: 0.4, cutmix: 1.0}
  ema: {decay: 0.9}
  checkpoint_steps: 2
  stages:
    - {kind: float, epochs: 1, lr: 0.05, warmup_epochs: 0.5, method: {kind: sam}}
    - {kind: quantized, epochs: 1, lr: 0.02, method: {kind: saq, rho: 0.3, efficient: {tau: 3}}}
    - {kind: statistics, batches: 2}
    - {kind: deploy, epochs: 1, lr: 0.001}
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    run_training(parse_recipe(TEACHER, "teacher"), folder)
    return folder


@pytest.fixture(scope="module")
def recipe(teacher: Path) -> Recipe:
    return parse_recipe(RECIPE, "mixed", [f"train.teacher.run={teacher}"])


@pytest.fixture(scope="module")
def finished(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mixed"
    run_training(recipe, folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    found = sorted((folder / "checkpoints" / "last").glob("*.safetensors"))
    return {path.name: path.read_bytes() for path in found}


@pytest.mark.parametrize("step", [3, 9, 13])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    recipe: Recipe, finished: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(TrainingStoppedError):
        run_training(recipe, tmp_path, on_progress=sigterm_at(step))
    run_training(recipe, tmp_path, resume=True)
    assert files(tmp_path) == files(finished)


@pytest.mark.parametrize("off", ["train.mixing=null", "data.rand_augment=null", "data.random_erasing=null"])
def test_each_of_them_changes_what_is_learnt(teacher: Path, finished: Path, tmp_path: Path, off: str) -> None:
    run_training(parse_recipe(RECIPE, "mixed", [f"train.teacher.run={teacher}", off]), tmp_path)
    one, other = (read_checkpoint(run / "checkpoints" / "last").model for run in (finished, tmp_path))
    assert any(not (one[name] == other[name]).all() for name in one)


def test_the_rest_of_the_log_is_that_of_any_training(finished: Path) -> None:
    lines = read_log(finished / "log.jsonl")
    assert [line["kind"] for line in lines if line["event"] == "stage"] == ["quantized", "deploy"]
    assert not [line for line in lines if line["event"] == "skipped"]
