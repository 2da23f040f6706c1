"""The training loop as a whole: stages, logs, and going on after every kind of end."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from saq_qat.errors import DivergedError, RecipeError, SaqError
from saq_qat.optim.compilation import missing_compiler
from saq_qat.recipe.load import dump_recipe, parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import read_checkpoint
from saq_qat.train.choose import standing_of
from saq_qat.train.files import locked
from saq_qat.train.log import read_log
from saq_qat.train.progress import Progress
from saq_qat.train.restore import restore
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from tests.train.small_recipe import INFINITE
from tests.train.stopping import sigterm_at

RECIPE = """
version: 1
name: small
seed: 3
model: {name: "tests.train.small_network:SmallNetwork"}
data: {kind: digits, image_size: 8, augmentation: crop_flip, train_limit: 80, val_limit: 40}
quant: {weight: {bits: 4}, activation: {bits: 4}, calibration_batches: 1}
train:
  batch_size: 16
  optimizer: {kind: sgd}
  checkpoint_steps: 3
  stages:
    - {kind: float, epochs: 1, lr: 0.05, warmup_epochs: 0.5}
    - {kind: quantized, epochs: 2, lr: 0.02, method: {kind: saq, rho: 0.3, efficient: {tau: 3}}}
    - {kind: deploy, epochs: 1, lr: 0.001}
"""
STEPS = 20


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, "small", overrides)


@dataclass
class Finished:
    folder: Path
    shown: list[Progress]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    shown: list[Progress] = []
    run_training(recipe(), folder, on_progress=shown.append)
    return Finished(folder, shown)


def weights(folder: Path) -> dict[str, bytes]:
    names = ("model.safetensors", "optimizer.safetensors")
    return {
        f"{which}/{name}": (folder / "checkpoints" / which / name).read_bytes()
        for which in ("last", "best")
        for name in names
    }


NOT_REPEATED = ("images_per_second", "seconds", "step_seconds", "waited", "step_cosine")
"""Speed; and the angle to a gradient that no checkpoint holds."""


def log_that_repeats(folder: Path) -> list[dict[str, object]]:
    lines = read_log(folder / "log.jsonl")
    return [{k: v for k, v in line.items() if k not in NOT_REPEATED} for line in lines]


def test_stages_follow_each_other_and_every_epoch_is_judged(finished: Finished) -> None:
    lines = read_log(finished.folder / "log.jsonl")
    assert [line["kind"] for line in lines if line["event"] == "stage"] == ["quantized", "deploy"]
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert [line["stage"] for line in epochs] == ["float", "quantized", "quantized", "deploy"]
    assert ["deploy_top1" in line for line in epochs] == [False, True, True, True]
    assert all(alpha > 0 for alpha in epochs[-1]["clip_levels"].values())
    assert lines[-1]["event"] == "end" and lines[-1]["step"] == STEPS
    assert max(p.step for p in finished.shown) == finished.shown[0].steps == STEPS


def test_epochs_between_those_judged_cost_no_evaluation_and_cannot_be_best(tmp_path: Path) -> None:
    stages = "train.stages=[{kind: float, epochs: 5, lr: 0.05}, {kind: quantized, epochs: 1, lr: 0.02}]"
    shown: list[Progress] = []
    run_training(recipe("train.evaluate_epochs=2", stages), tmp_path, on_progress=shown.append)
    epochs = [line for line in read_log(tmp_path / "log.jsonl") if line["event"] == "epoch"]
    assert ["top1" in line for line in epochs] == [False, True, False, True, True, True]
    assert all("loss" in line for line in epochs)
    assert sum(state.top1 is not None for state in shown) == 4
    assert read_checkpoint(tmp_path / "checkpoints" / "best").position.stage == 1


class PowerCutError(Exception):
    """Nothing may be saved after it."""


def test_an_epoch_that_was_not_judged_has_no_accuracy_of_another(tmp_path: Path) -> None:
    def end(state: Progress) -> None:
        if state.step == 16:
            raise PowerCutError

    stages = "train.stages=[{kind: float, epochs: 9, lr: 0.05}]"
    with pytest.raises(PowerCutError):
        run_training(recipe(stages, "quant=null", "train.evaluate_epochs=2"), tmp_path, on_progress=end)
    last, best = (standing_of(tmp_path, which) for which in ("last", "best"))
    assert last is not None and best is not None
    assert (last.step, last.top1, last.score) == (15, None, "not evaluated")
    assert best.step == 10 and best.top1 is not None


def test_second_passes_fall_on_every_third_step(finished: Finished) -> None:
    lines = read_log(finished.folder / "log.jsonl")
    saq = [line for line in lines if line["event"] == "step" and line["stage"] == "quantized"]
    assert ["perturbed_loss" in line for line in saq] == [i % 3 == 0 for i in range(10)]


def test_a_run_restores_to_the_network_that_was_judged(finished: Finished) -> None:
    restored = restore(finished.folder)
    assert (restored.form, restored.step, restored.recipe) == ("deploy", STEPS, recipe())
    expected = read_checkpoint(finished.folder / "checkpoints" / "last").model
    state = restored.network.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not restored.network.training


def test_every_step_but_the_first_of_a_stage_says_how_far_its_gradient_turned(finished: Finished) -> None:
    steps = [line for line in read_log(finished.folder / "log.jsonl") if line["event"] == "step"]
    first = [index for index, line in enumerate(steps) if line["stage"] != steps[index - 1]["stage"]]
    assert [index for index, line in enumerate(steps) if "step_cosine" not in line] == first
    assert all(-1 <= line.get("step_cosine", 0) <= 1 for line in steps)


def test_resuming_a_finished_run_changes_nothing(finished: Finished) -> None:
    before, log = weights(finished.folder), log_that_repeats(finished.folder)
    run_training(recipe(), finished.folder, resume=True)
    assert weights(finished.folder) == before
    assert log_that_repeats(finished.folder) == log


@pytest.mark.parametrize("step", [8, 17])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    finished: Finished, tmp_path: Path, step: int
) -> None:
    with pytest.raises(TrainingStoppedError) as stopped:
        run_training(recipe(), tmp_path, on_progress=sigterm_at(step))
    assert stopped.value.exit_code == 143
    run_training(recipe(), tmp_path, resume=True)
    assert weights(tmp_path) == weights(finished.folder)
    assert log_that_repeats(tmp_path) == log_that_repeats(finished.folder)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from saq_qat.recipe.load import load_recipe
from saq_qat.train.run import run_training
torch.set_num_threads(int(sys.argv[3]))
def kill(state):
    if state.step == 10:
        os.kill(os.getpid(), signal.SIGKILL)
run_training(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), on_progress=kill)
"""


def kill_after_ten_steps(written: Path, folder: Path) -> None:
    arguments = [str(written), str(folder), str(torch.get_num_threads())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment)
    assert ended.returncode == -signal.SIGKILL
    assert read_checkpoint(folder / "checkpoints" / "last").position.step == 9


def test_a_killed_run_goes_on_as_if_it_had_not_been_killed(finished: Finished, tmp_path: Path) -> None:
    """Killed inside an epoch and a tau interval, one step after a checkpoint."""
    written = tmp_path / "recipe.yaml"
    written.write_text(dump_recipe(recipe()))
    kill_after_ten_steps(written, tmp_path / "run")
    run_training(recipe(), tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(finished.folder)
    assert log_that_repeats(tmp_path / "run") == log_that_repeats(finished.folder)


@pytest.mark.slow  # the compiler takes a quarter of a minute for each stage
@pytest.mark.skipif(
    missing_compiler(torch.device("cpu")) is not None, reason="compares with what a C++ compiler makes"
)
def test_a_compiled_run_goes_on_bit_for_bit_after_it_was_killed(tmp_path: Path) -> None:
    compiled = recipe("model.name=tests.train.small_network:SmallNetwork", "train.compile=on")
    written = tmp_path / "recipe.yaml"
    written.write_text(dump_recipe(compiled))
    run_training(compiled, tmp_path / "whole")
    kill_after_ten_steps(written, tmp_path / "run")
    run_training(compiled, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    lines = log_that_repeats(tmp_path / "run")
    assert lines == log_that_repeats(tmp_path / "whole")
    stages = [line for line in lines if line["event"] == "execution"]
    assert [line["stage"] for line in stages] == ["float", "quantized", "deploy"]
    assert all(line["compiled"] and line["memory_format"] == "channels_last" for line in stages)


def test_a_changed_recipe_is_refused_with_what_changed(finished: Finished) -> None:
    with pytest.raises(RecipeError, match=r"train\.stages\.1\.method\.rho: 0\.3 -> 0\.5"):
        run_training(recipe("train.stages.1.method.rho=0.5"), finished.folder, resume=True)


def test_a_new_training_never_overwrites_a_run(finished: Finished) -> None:
    with pytest.raises(RecipeError, match="holds a run already"):
        run_training(recipe(), finished.folder)


def test_another_number_of_processes_is_refused(tmp_path: Path, finished: Finished) -> None:
    for path in finished.folder.rglob("*"):
        target = tmp_path / path.relative_to(finished.folder)
        target.mkdir(parents=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    last = tmp_path / "checkpoints" / "last"
    state = json.loads((last / "state.json").read_text()) | {"world_size": 2}
    (last / "state.json").write_text(json.dumps(state))
    hashes = json.loads((last / "sha256.json").read_text())
    hashes["state.json"] = hashlib.sha256((last / "state.json").read_bytes()).hexdigest()
    (last / "sha256.json").write_text(json.dumps(hashes))
    with pytest.raises(RecipeError, match=r"started with 2 process\(es\), now 1"):
        run_training(recipe(), tmp_path, resume=True)


def test_two_trainings_cannot_share_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(SaqError, match="another process is at work"):
        run_training(recipe(), tmp_path)


def test_images_that_make_the_loss_infinite_end_with_exit_code_5(tmp_path: Path) -> None:
    broken = recipe(*INFINITE, "train.stages=[{kind: float, epochs: 3, lr: 0.05}]")
    with pytest.raises(DivergedError) as diverged:
        run_training(broken, tmp_path)
    assert diverged.value.exit_code == 5
    assert re.match(r"Batch \d+ of epoch \d+ in stage 1, step 10: 10 steps in a row", str(diverged.value))
    assert sum(line["event"] == "skipped" for line in read_log(tmp_path / "log.jsonl")) == 9


def test_weights_that_no_scale_can_hold_after_some_steps_have_diverged(tmp_path: Path) -> None:
    """A rate beyond those of recipes stands for weights that grow for long."""
    legal = recipe("train.stages.0.warmup_epochs=0")
    first, *others = legal.train.stages
    stages = (first.model_copy(update={"lr": 1e30}), *others)
    hopeless = legal.model_copy(update={"train": legal.train.model_copy(update={"stages": stages})})
    told = r"Training diverged within 5 steps: A scale must be a finite float32"
    with pytest.raises(DivergedError, match=told):
        run_training(hopeless, tmp_path)
