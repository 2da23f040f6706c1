"""Which checkpoint ships: the best epoch of the last stage, and in words where that cannot be had."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saq_qat.errors import ArtifactError
from saq_qat.recipe.load import dump_recipe, parse_recipe
from saq_qat.train import run as run_module
from saq_qat.train.checkpoint import Checkpoint, Form, Position, read_checkpoint, write_checkpoint
from saq_qat.train.choose import CheckpointName, checkpoint_with, choose_checkpoint
from saq_qat.train.evaluate import Accuracy
from saq_qat.train.log import RunLog, read_log
from saq_qat.train.state_file import progress_at_start
from saq_qat.train.stop import TrainingStoppedError
from tests.report.networks import small_recipe
from tests.train.stopping import sigterm_at

RECIPE = """
version: 1
name: chosen
model: {name: resnet20}
data: {kind: digits, image_size: 8}
quant: {weight: {bits: 4}, activation: {bits: 4}}
train:
  batch_size: 16
  optimizer: {kind: sgd}
  stages:
    - {kind: float, epochs: 2, lr: 0.05}
    - {kind: quantized, epochs: 2, lr: 0.02}
    - {kind: deploy, epochs: 2, lr: 0.001}
"""
FORMS: tuple[Form, ...] = ("float", "quantized", "deploy")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "resolved.yaml").write_text(dump_recipe(parse_recipe(RECIPE, "chosen")))
    return tmp_path


def save(
    run: Path, name: CheckpointName, stage: int, step: int, deployed: float | None, *, batch: int = 0
) -> None:
    """A checkpoint whose evaluation found ``deployed``; at the end of an epoch unless ``batch`` is given."""
    accuracy = {"top1": 99.0, "top5": 100.0, "val_loss": 0.1, "deploy_top1": deployed}
    checkpoint = Checkpoint(
        Position(stage, 1, batch, step),
        FORMS[stage],
        1,
        {"weight": torch.full((2,), float(step))},
        progress={**progress_at_start(), "accuracy": accuracy},
    )
    write_checkpoint(run / "checkpoints" / name, checkpoint)


def test_best_of_the_last_stage_is_taken_and_the_other_is_told(run: Path) -> None:
    save(run, "best", 2, 5, 97.5)
    save(run, "last", 2, 6, 96.25)
    choice = choose_checkpoint(run)
    assert (choice.taken.name, choice.taken.step, choice.note) == ("best", 5, "")
    assert str(choice) == (
        "checkpoint best (step 5, deployed top-1 97.50 %); last (step 6) scores: deployed top-1 96.25 %"
    )


@pytest.mark.parametrize("asked", ["best", "last"])
def test_what_was_asked_for_is_taken(run: Path, asked: CheckpointName) -> None:
    save(run, "best", 2, 5, 97.5)
    save(run, "last", 2, 6, 96.25)
    assert choose_checkpoint(run, asked).taken.name == asked


def test_a_best_of_an_earlier_stage_does_not_win_over_the_last_stage(run: Path) -> None:
    """So it is in a run that was stopped in its deploy stage's first epoch."""
    save(run, "best", 1, 4, 99.0)
    save(run, "last", 2, 5, 99.0, batch=3)
    choice = choose_checkpoint(run)
    assert choice.taken.name == "last"
    assert str(choice) == (
        "checkpoint last (step 5, not evaluated); best (step 4) scores: deployed top-1 99.00 %. It was taken "
        "because the run has no best of its last stage: best is of stage 2 of 3 (quantized)."
    )


def test_without_any_best_last_is_taken_in_words(run: Path) -> None:
    save(run, "last", 0, 1, None, batch=1)
    assert "no epoch has ended yet, so the run has no best" in str(choose_checkpoint(run))


def test_two_names_of_one_network_are_told(run: Path) -> None:
    save(run, "best", 2, 6, 97.5)
    save(run, "last", 2, 6, 97.5)
    assert str(choose_checkpoint(run)).endswith("; last is the same network")


def test_a_damaged_last_hinders_nobody_who_takes_best(run: Path) -> None:
    save(run, "best", 2, 5, 97.5)
    save(run, "last", 2, 6, 96.25)
    (run / "checkpoints" / "last" / "model.safetensors").write_bytes(b"")
    choice = choose_checkpoint(run)
    assert choice.taken.name == "best" and choice.other is None
    assert "How last scores is unknown" in str(choice) and "damaged" in str(choice)
    with pytest.raises(ArtifactError, match="damaged"):
        choose_checkpoint(run, "last")


def test_a_run_without_checkpoints_and_a_folder_without_a_run_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has not saved one yet"):
        choose_checkpoint(run)
    with pytest.raises(ArtifactError, match=r"no resolved\.yaml"):
        choose_checkpoint(tmp_path / "nothing")


def test_a_checkpoint_is_found_by_its_digest_or_refused_by_name(run: Path) -> None:
    save(run, "best", 2, 5, 97.5)
    save(run, "last", 2, 6, 96.25)
    digests = {name: read_checkpoint(run / "checkpoints" / name).sha256 for name in ("best", "last")}
    for name, digest in digests.items():
        assert checkpoint_with(run, digest) == name
    with pytest.raises(ArtifactError, match=rf"has best {digests['best'][:12]}.*last {digests['last'][:12]}"):
        checkpoint_with(run, "0" * 64)


def test_equal_weights_have_one_digest_whatever_else_a_checkpoint_holds(run: Path) -> None:
    save(run, "best", 2, 6, 97.5)
    plain = read_checkpoint(run / "checkpoints" / "best")
    more = replace(plain, training={"momentum": torch.ones(2)}, position=replace(plain.position, step=7))
    write_checkpoint(run / "checkpoints" / "last", more)
    assert read_checkpoint(run / "checkpoints" / "last").sha256 == plain.sha256


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs that score ever less from stage to stage: float 90, quantized 80 and 79, deploy 70, 72, 71."""
    script = iter((90.0, 80.0, 79.0, 70.0, 72.0, 71.0))

    def evaluate(*_: object) -> tuple[Accuracy, Accuracy]:
        found = Accuracy(next(script), 100.0, math.nan, 40)
        return found, found

    monkeypatch.setattr(run_module, "evaluate_both", evaluate)


STAGES = (
    "train.stages=[{kind: float, epochs: 1, lr: 0.05}, {kind: quantized, epochs: 2, lr: 0.02}, "
    "{kind: deploy, epochs: 3, lr: 0.001}]"
)


@pytest.mark.usefixtures("scores")
def test_training_keeps_the_best_epoch_of_its_last_stage(tmp_path: Path) -> None:
    result = run_module.run_training(small_recipe(STAGES), tmp_path)
    assert result.best_top1 == 72.0
    choice = choose_checkpoint(tmp_path)
    assert (choice.taken.name, choice.taken.step, choice.taken.deploy_top1) == ("best", 20, 72.0)
    assert choice.other is not None and (choice.other.step, choice.other.deploy_top1) == (24, 71.0)
    assert "NaN" not in (tmp_path / "checkpoints" / "last" / "state.json").read_text()


@pytest.mark.usefixtures("scores")
def test_a_run_stopped_in_its_last_stage_and_gone_on_with_keeps_the_same_best(tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError):
        run_module.run_training(small_recipe(STAGES), tmp_path, on_progress=sigterm_at(14))
    choice = choose_checkpoint(tmp_path)
    assert (choice.taken.name, choice.taken.step, choice.taken.score) == ("last", 14, "not evaluated")
    assert "best is of stage 2 of 3 (quantized)" in choice.note
    result = run_module.run_training(small_recipe(STAGES), tmp_path, resume=True)
    assert (result.best_top1, choose_checkpoint(tmp_path).taken.step) == (72.0, 20)


def test_a_log_holds_no_number_that_json_has_not(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    values = {"loss": float("nan"), "top1": 10.0, "levels": {"a": float("inf"), "b": 1.0}}
    log.write("epoch", 1, {"stage": "float", "epoch": 1, **values})
    assert "NaN" not in (tmp_path / "log.jsonl").read_text()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "epoch", "step": 2, "stage": "float", "epoch": 2, "loss": NaN}\n')
    line, of_an_older_version = read_log(tmp_path / "log.jsonl")
    assert line["loss"] is None and line["levels"] == {"a": None, "b": 1.0}
    assert of_an_older_version["loss"] is None
