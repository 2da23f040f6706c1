"""A Vision Transformer from float to the deploy stage, with all that a step remembers, stopped on the way."""

from pathlib import Path

import pytest
from torch import nn

from saq_qat.errors import RecipeError
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import read_checkpoint
from saq_qat.train.log import read_log
from saq_qat.train.progress import Progress
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from tests.train.stopping import sigterm_at

pytest.importorskip("timm", reason="needs the extra vit")

DATA = "{kind: digits, image_size: 8, augmentation: crop_flip, train_limit: 64, val_limit: 40}"
TEACHER = f"""
version: 1
name: teacher
model: {{name: "{__name__}:Teacher"}}
data: {DATA}
train:
  batch_size: 16
  optimizer: {{kind: sgd}}
  stages: [{{kind: float, epochs: 5, lr: 0.05}}]
"""
STUDENT = f"""
version: 1
name: transformer
seed: 3
model:
  name: vit_micro
  arguments: {{img_size: 8, embed_dim: 16, num_heads: 2, depth: 1, drop_path_rate: 0.2, proj_drop_rate: 0.1}}
data: {DATA}
quant:
  weight: {{kind: lsq, bits: 4, initialise: least_squares}}
  activation: {{kind: lsq, bits: 4, offset: bounded, initialise: least_squares}}
  calibration_batches: 1
train:
  batch_size: 16
  micro_batch_size: 8
  optimizer: {{kind: adamw}}
  checkpoint_steps: 3
  stages:
    - {{kind: float, epochs: 1, lr: 0.001, method: {{kind: sam}}}}
    - {{kind: quantized, epochs: 2, lr: 0.0005, method: {{kind: saq, rho: 0.1, efficient: {{tau: 3}}}}}}
    - {{kind: deploy, epochs: 1, lr: 0.0005, method: {{kind: saq, rho: 0.1, case: 1}}}}
"""


class Teacher(nn.Sequential):
    """In training mode its answers depend on the batch, on chance, and on nothing that a run changes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(288, num_classes),
        )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    run_training(parse_recipe(TEACHER, "teacher"), folder)
    return folder


@pytest.fixture(scope="module")
def student(teacher: Path) -> Recipe:
    return parse_recipe(STUDENT, "student", [f"train.teacher.run={teacher}", "train.teacher.mode=train"])


@pytest.fixture(scope="module")
def finished(student: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_training(student, folder)
    return folder


def content(folder: Path) -> list[bytes]:
    names = ("model.safetensors", "optimizer.safetensors")
    return [(folder / "checkpoints" / which / n).read_bytes() for which in ("last", "best") for n in names]


@pytest.mark.parametrize("step", [2, 6, 14])
def test_a_stopped_transformer_goes_on_as_if_it_had_not_stopped(
    student: Recipe, finished: Path, tmp_path: Path, step: int
) -> None:
    """In the float stage, between two second passes, and in the deploy stage."""

    with pytest.raises(TrainingStoppedError):
        run_training(student, tmp_path, on_progress=sigterm_at(step))
    run_training(student, tmp_path, resume=True)
    assert content(tmp_path) == content(finished)


def test_every_step_and_offset_is_learned_and_what_must_go_on_is_kept(
    student: Recipe, tmp_path: Path
) -> None:
    class EndOfQuantizedStageError(Exception):
        pass

    def end(state: Progress) -> None:
        if state.stage == "deploy":
            raise EndOfQuantizedStageError

    with pytest.raises(EndOfQuantizedStageError):
        run_training(student, tmp_path, on_progress=end)
    kept = read_checkpoint(tmp_path / "checkpoints" / "last").training
    learned = {name for name in kept if name.startswith("optimizer/exp_avg_sq/")}
    levels = {name for name in learned if name.endswith((".alpha", ".beta"))}
    assert len([name for name in levels if name.endswith(".beta")]) == 1
    assert all(kept[name] > 0 for name in levels)
    trained = {name.removeprefix("optimizer/exp_avg_sq/") for name in learned}
    assert {name.removeprefix("method/g_v/") for name in kept if name.startswith("method/g_v/")} == trained


def test_second_passes_are_as_many_as_the_method_asks_for(finished: Path) -> None:
    steps = [line for line in read_log(finished / "log.jsonl") if line["event"] == "step"]
    assert ["perturbed_loss" in line for line in steps] == (
        [True] * 4 + [index % 3 == 0 for index in range(8)] + [True] * 4
    )
    assert all(line["epsilon_norm"] == pytest.approx(0.1, rel=1e-4) for line in steps[4::3][:3])


def test_a_transformer_s_statistics_stage_is_refused_with_what_to_do(student: Recipe, tmp_path: Path) -> None:
    stages = "train.stages=[{kind: quantized, epochs: 1, lr: 0.001}, {kind: statistics}]"
    with pytest.raises(RecipeError, match=r"train\.stages\.1: .*keeps none\. Leave the stage out"):
        run_training(parse_recipe(STUDENT, "student", [stages]), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
