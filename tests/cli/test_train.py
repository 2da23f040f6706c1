import os
import signal
from pathlib import Path

import pytest
from pytest import CaptureFixture, MonkeyPatch

from saq_qat.cli.check import check
from saq_qat.cli.console import quietly
from saq_qat.cli.eval import evaluate_run
from saq_qat.cli.train import train
from saq_qat.errors import ArtifactError, DataError, RecipeError
from saq_qat.recipe.load import load_recipe
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from tests.train.small_recipe import SMALL_RECIPE

AS_WRITTEN = f"# as written{SMALL_RECIPE}"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: MonkeyPatch) -> Path:
    """A recipe whose network was checked: tests/export/test_rehearsal.py asks that train begins with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("saq_qat.cli.train.deployable", lambda *_: ())
    path = tmp_path / "recipe.yaml"
    path.write_text(AS_WRITTEN)
    return path


def test_a_run_holds_the_recipe_as_written_and_as_resolved(recipe: Path, capsys: CaptureFixture[str]) -> None:
    train(recipe, ["seed=5"])
    (run,) = Path("runs", "small").iterdir()
    assert (run / "recipe.yaml").read_text() == AS_WRITTEN
    assert (run / "overrides.json").read_text() == '["seed=5"]'
    assert "seed: 5" in (run / "resolved.yaml").read_text()
    assert (run / "env.json").is_file()
    shown = capsys.readouterr().out
    assert f"run {run}" in shown and "deployed top-1" in shown

    evaluate_run()
    lines = capsys.readouterr().out
    assert "fake-quant" in lines and "deploy view" in lines


def test_a_recipe_without_a_whole_batch_is_refused_by_check_and_leaves_no_run(
    recipe: Path, tmp_path: Path
) -> None:
    for refuse in (check, train):
        with pytest.raises(DataError, match=r"at least one batch.*Lower train\.batch_size"):
            refuse(recipe, ["train.batch_size=1000000000"])
    with pytest.raises(DataError, match="at least one batch"):
        run_training(load_recipe(recipe, ["train.batch_size=1000000000"]), tmp_path / "own")
    assert not Path("runs").exists() and not (tmp_path / "own" / "checkpoints").exists()


def test_resuming_finds_the_run_by_folder_by_recipe_or_takes_the_newest(
    recipe: Path, capsys: CaptureFixture[str]
) -> None:
    train(recipe)
    (run,) = Path("runs", "small").iterdir()
    for argument in (run, recipe, None):
        capsys.readouterr()
        train(argument, resume=True)
        assert f"run {run}" in capsys.readouterr().out
    assert list(Path("runs", "small").iterdir()) == [run]


def test_a_run_that_goes_on_counts_from_where_it_was_left(
    recipe: Path, capsys: CaptureFixture[str], monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr("saq_qat.cli.console.LINE_SECONDS", 0.0)

    def stop(_state: object) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return ""

    with pytest.raises(TrainingStoppedError), MonkeyPatch.context() as stopping:
        stopping.setattr("saq_qat.cli.train._note", stop)
        train(recipe, ["train.stages.0.epochs=2"])
    capsys.readouterr()
    train(resume=True)
    shown = capsys.readouterr()
    assert "goes on behind step 1 of 4\n" in shown.out
    assert shown.err.splitlines()[0].startswith("train: 2/4 in ")
    assert shown.err.splitlines()[-1].startswith("train: 4/4 in ")
    assert "after 4 steps (3 of them now) in " in shown.out


def test_quiet_shows_results_alone(recipe: Path, capsys: CaptureFixture[str]) -> None:
    with quietly(True):
        train(recipe)
        evaluate_run()
    shown = capsys.readouterr()
    assert shown.err == "" and shown.out.startswith("top-1 ")
    assert "epoch 1/1" not in shown.out and "fake-quant" in shown.out


def test_steps_are_shown_before_anything_is_logged(recipe: Path, capsys: CaptureFixture[str]) -> None:
    """Of an epoch of 64 batches, every third is logged."""
    train(recipe, ["data.train_size=64", "train.batch_size=1", "quant=null", "train.stages.0.kind=float"])
    assert "float epoch 1/1" in capsys.readouterr().out


def test_mistakes_are_named_before_anything_is_written(recipe: Path) -> None:
    with pytest.raises(RecipeError, match="needs a recipe"):
        train()
    with pytest.raises(RecipeError, match="momentun"):
        train(recipe, ["train.optimizer.momentun=0.5"])
    with pytest.raises(ArtifactError, match="no run"):
        train(recipe, resume=True)
    assert not Path("runs").exists()


def test_a_run_keeps_its_recipe(recipe: Path) -> None:
    train(recipe)
    (run,) = Path("runs", "small").iterdir()
    with pytest.raises(RecipeError, match="seed: 0 -> 1"):
        train(run, ["seed=1"], resume=True)
    with pytest.raises(RecipeError, match="seed: 0 -> 1"):
        train(recipe, ["seed=1"], resume=True)


def test_a_teacher_that_is_not_there_is_refused_by_check_and_leaves_no_run(recipe: Path) -> None:
    for refuse in (check, train):
        with pytest.raises(ArtifactError, match=r"train\.teacher: .*runs/teacher"):
            refuse(recipe, ["train.teacher={run: runs/teacher}"])
    assert not Path("runs").exists()


def test_every_stage_is_named_and_the_next_command(recipe: Path, capsys: CaptureFixture[str]) -> None:
    deploy = "{kind: deploy, epochs: 1, lr: 0.001}"
    stages = f"[{{kind: quantized, epochs: 1, lr: 0.1}}, {{kind: statistics, batches: 3}}, {deploy}]"
    train(recipe, [f"train.stages={stages}"])
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    for named in ("quantized epoch 1/1", "statistics of 3 batches", "deploy epoch 1/1"):
        assert any(line.startswith("stage ") and line.endswith(named) for line in lines), named
    assert lines[-1] == "next"


@pytest.mark.filterwarnings("ignore:train.teacher")  # that it guesses: two steps have taught it nothing
def test_a_teacher_is_named_with_its_accuracy(recipe: Path, capsys: CaptureFixture[str]) -> None:
    train(recipe)
    (teacher,) = Path("runs", "small").iterdir()
    capsys.readouterr()
    train(recipe, ["name=pupil", f"train.teacher={{run: {teacher}}}"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("teacher ")]
    assert str(teacher) in line and "top-1" in line
