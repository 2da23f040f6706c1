"""Going on: never from nothing, never over what a newer version wrote, never with another recipe."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest import CaptureFixture, MonkeyPatch

from saq_qat.cli.train import train
from saq_qat.errors import ArtifactError, RecipeError
from saq_qat.recipe.load import dump_recipe
from saq_qat.train.checkpoint import FormatError, read_checkpoint
from saq_qat.train.log import read_log
from saq_qat.train.progress import Progress
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from tests.faults.training.recipes import copied, everything_in, faulty_recipe, with_state

Harm = Callable[[Path], object]


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(b"")


def _both(harm: Harm) -> Harm:
    def to_both(checkpoints: Path) -> None:
        harm(checkpoints / "last")
        harm(checkpoints / "last.previous")

    return to_both


def _as_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a note")


def _without_files(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


LOST: dict[str, Harm] = {
    "missing": _both(shutil.rmtree),
    "all missing": shutil.rmtree,
    "empty files": _both(_empty),
    "no files": _both(_without_files),
    "no hashes": _both(lambda folder: (folder / "sha256.json").unlink()),
    "files in their place": _both(_as_file),
}


@pytest.mark.parametrize("harm", LOST.values(), ids=LOST.keys())
def test_a_run_without_a_usable_checkpoint_is_refused_and_left_as_it_is(
    stopped: Path, tmp_path: Path, harm: Harm
) -> None:
    run = copied(stopped, tmp_path / "run")
    harm(run / "checkpoints")
    before = everything_in(run)
    with pytest.raises(ArtifactError, match=r"last.*(new run|train)"):
        run_training(faulty_recipe(), run, resume=True)
    assert everything_in(run) == before


def test_what_is_left_of_a_run_is_told(stopped: Path, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "last")
    shutil.rmtree(run / "checkpoints" / "last.previous")
    with pytest.raises(ArtifactError, match=r"What is there: checkpoints/best, .*log\.jsonl \(\d+ bytes\)"):
        run_training(faulty_recipe(), run, resume=True)


def test_a_run_that_was_killed_before_its_first_step_goes_on(tmp_path: Path) -> None:
    """It has a checkpoint from the start; without any, and without a line of a log, nothing is lost."""

    class KilledError(Exception):
        pass

    def kill(_: Progress) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        run_training(faulty_recipe(), tmp_path, on_progress=kill)
    assert read_checkpoint(tmp_path / "checkpoints" / "last").position.step == 0
    run_training(faulty_recipe(), tmp_path, resume=True)
    whole = tmp_path / "whole"
    run_training(faulty_recipe(), whole, resume=True)
    last = Path("checkpoints", "last", "model.safetensors")
    assert (tmp_path / last).read_bytes() == (whole / last).read_bytes()


def test_a_damaged_checkpoint_is_set_aside_and_never_pushes_out_the_whole_one(
    stopped: Path, tmp_path: Path
) -> None:
    run = copied(stopped, tmp_path / "run")
    _empty(run / "checkpoints" / "last")

    def stop_at_once(_: Progress) -> None:
        raise KeyboardInterrupt

    told = "Going on from the checkpoint before it, at step 4"
    with pytest.warns(UserWarning, match=told), pytest.raises(KeyboardInterrupt):
        run_training(faulty_recipe(), run, resume=True, on_progress=stop_at_once)
    names = sorted(path.name.partition("-")[0] for path in (run / "checkpoints").iterdir())
    assert names == ["best", "last.damaged", "last.previous"]
    run_training(faulty_recipe(), run, resume=True)
    assert read_checkpoint(run / "checkpoints" / "last").position.step == 8


@pytest.mark.parametrize("name", ["last", "last.previous", "best"])
@pytest.mark.parametrize("found", [5, 99])
def test_a_newer_format_is_refused_and_stays(stopped: Path, tmp_path: Path, name: str, found: int) -> None:
    run = copied(stopped, tmp_path / "run")
    with_state(run / "checkpoints" / name, lambda state: state.update(format=found))
    before = everything_in(run)
    with pytest.raises(FormatError, match=f"{name}: a checkpoint of format {found}.*Use the version"):
        run_training(faulty_recipe(), run, resume=True)
    assert everything_in(run) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_polite_signal_saves_and_leaves_with_its_own_code(
    tmp_path: Path, number: signal.Signals
) -> None:
    def stop(state: Progress) -> None:
        if state.step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(TrainingStoppedError) as stopped:
        run_training(faulty_recipe(), tmp_path, on_progress=stop)
    assert stopped.value.exit_code == 128 + number
    assert read_checkpoint(tmp_path / "checkpoints" / "last").position.step == 3


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_training(faulty_recipe(), tmp_path, on_progress=lambda _: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert read_checkpoint(tmp_path / "checkpoints" / "last").position.step == 8


def test_a_hangup_behind_a_termination_does_not_kill_what_saves(tmp_path: Path) -> None:
    def stop(state: Progress) -> None:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(TrainingStoppedError) as stopped:
        run_training(faulty_recipe(), tmp_path, on_progress=stop)
    assert stopped.value.exit_code == 143


MAY_CHANGE = ("data.workers=1", "train.checkpoint_steps=3")
CHANGES_RESULTS = (
    "train.stages.0.lr=0.06",
    "train.batch_size=32",
    "seed=1",
    "data.augmentation=crop_flip",
    "train.optimizer.momentum=0.5",
    "train.label_smoothing=0.1",
)


@pytest.mark.parametrize("override", MAY_CHANGE)
def test_what_changes_no_result_may_change(stopped: Path, tmp_path: Path, override: str) -> None:
    run = copied(stopped, tmp_path / "run")
    run_training(faulty_recipe(override), run, resume=True)
    whole = tmp_path / "whole"
    run_training(faulty_recipe(), whole)
    last = Path("checkpoints", "last", "model.safetensors")
    assert (run / last).read_bytes() == (whole / last).read_bytes()
    key, _, value = override.partition("=")
    assert f"{key.rpartition('.')[2]}: {value}" in (run / "resolved.yaml").read_text()


@pytest.mark.parametrize("override", CHANGES_RESULTS)
@pytest.mark.parametrize("edited", [False, True], ids=["given", "resolved.yaml edited"])
def test_what_changes_results_may_not(stopped: Path, tmp_path: Path, override: str, edited: bool) -> None:
    run = copied(stopped, tmp_path / "run")
    other = faulty_recipe(override)
    if edited:
        (run / "resolved.yaml").write_text(dump_recipe(other))
    before = everything_in(run)
    with pytest.raises(RecipeError, match=rf"{override.partition('=')[0]}: .* -> "):
        run_training(other, run, resume=True)
    assert everything_in(run) == before


@pytest.mark.parametrize(
    "resolved", [b"", b"\xff\xfe", b"version: 1\n", b"[1, 2]", b"version: 1\nname: x\nmodel: 3\n"]
)
def test_a_resolved_recipe_that_is_none_is_named(stopped: Path, tmp_path: Path, resolved: bytes) -> None:
    run = copied(stopped, tmp_path / "run")
    (run / "resolved.yaml").write_bytes(resolved)
    with pytest.raises(RecipeError, match=r"resolved\.yaml"):
        run_training(faulty_recipe(), run, resume=True)


def test_images_may_lie_elsewhere_but_must_be_the_same(
    tmp_path: Path, monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("saq_qat.cli.train.deployable", lambda *_: ())
    for split in ("train", "val"):
        for label in ("ant", "bee"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(8):
                Image.new("RGB", (8, 8), (number * 9, 40 * (label == "ant"), 0)).save(
                    folder / f"{number}.png"
                )
    images = "data={kind: imagefolder, root: images, image_size: 8, resize: 8}"
    stages = "train.stages=[{kind: float, epochs: 2, lr: 0.01}]"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(faulty_recipe(images, stages)))
    train(recipe)
    (run,) = Path("runs", "faults").iterdir()
    Path("images").rename("moved")
    train(run, ["data.root=moved"], resume=True)
    assert "root: moved" in (run / "resolved.yaml").read_text()
    Path("moved/train/ant/0.png").rename("moved/train/ant/9.png")
    with pytest.raises(ArtifactError, match="other images"):
        train(run, ["data.root=moved"], resume=True)


@pytest.mark.parametrize(
    "left", [None, 0, 200, -1], ids=["removed", "emptied", "cut", "its last newline cut"]
)
def test_a_log_that_lost_lines_is_told_and_the_training_goes_on(
    stopped: Path, tmp_path: Path, left: int | None
) -> None:
    run = copied(stopped, tmp_path / "run")
    log = run / "log.jsonl"
    saved = read_checkpoint(run / "checkpoints" / "last").progress["log_bytes"]
    whole = log.read_bytes()[:saved]
    log.unlink() if left is None else log.write_bytes(whole[:left])
    with pytest.warns(UserWarning, match="lines that are missing are lost"):
        run_training(faulty_recipe(), run, resume=True)
    lines = read_log(log)
    kept = whole[:left].count(b"\n") if left else 0
    assert lines[-1]["event"] == "end" and lines[:kept] == [
        json.loads(each) for each in whole.splitlines()[:kept]
    ]


def test_a_damaged_line_that_would_stay_in_the_log_is_refused_before_a_step_is_made(
    stopped: Path, tmp_path: Path
) -> None:
    run = copied(stopped, tmp_path / "run")
    log = run / "log.jsonl"
    first, second, *rest = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + second.replace(b"{", b"{{", 1)[:-2] + b"\n" + b"".join(rest))
    before = everything_in(run)
    with pytest.raises(ArtifactError, match=r"log\.jsonl:2: no line of a log"):
        run_training(faulty_recipe(), run, resume=True)
    assert everything_in(run) == before
    saved = read_checkpoint(run / "checkpoints" / "last").progress["log_bytes"]
    log.write_bytes((first + second + b"".join(rest))[:saved].replace(second, b"", 1))
    with pytest.warns(UserWarning, match="lines that are missing are lost"):
        run_training(faulty_recipe(), run, resume=True)
    assert read_log(log)[-1]["event"] == "end"
