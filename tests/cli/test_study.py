"""`saq-qat study` as a user meets it; one small study is trained in earnest."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saq_qat.cli.supervised import COMMAND
from tests.train.small_recipe import SMALL_RECIPE

SaqQat = Callable[..., int]
ROOT = Path(__file__).parents[2]

STUDY = """
version: 1
name: small
recipe: recipe.yaml
seeds: [3]
processes: 2
arms:
  twice: {overrides: {train.stages.0.epochs: 2}, equal_compute: saq}
  saq: {overrides: {"train.stages.0.method": {kind: saq, rho: 0.1}}}
comparisons: [{of: saq, against: twice}]
measure: {sharpness_images: 8, lambda_max_images: 8}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a recipe, and a study of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(ROOT / part) for part in ("", "export", "runtime")))
    (tmp_path / "recipe.yaml").write_text(SMALL_RECIPE)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def test_a_study_is_trained_measured_compared_and_reported(
    folder: Path, saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saq_qat("study", "study.yaml") == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert "study studies/small: 2 runs, 0 done, 2 to do" in said.err
    assert "2/2 runs" in said.err
    assert "saq - twice" in said.out and "equal compute" in said.out
    result = json.loads((folder / "studies/small/study.json").read_text())
    for run in result["runs"]:
        measured = run["measured"]
        log = (folder / "studies/small" / run["run"] / "log.jsonl").read_text().splitlines()
        end = json.loads(log[-1])
        assert measured["fake_quant"]["top1"] == end["top1"]
        assert measured["integer_kernels"] == measured["products"] == 3
        assert measured["deployed"]["images"] == 8
        assert measured["sharpness"]["images"] == measured["curvature"]["images"] == 8
        assert measured["curvature"]["residual"] <= 1e-2 * abs(measured["curvature"]["lambda_max"])
        assert measured["step_cost"]["passes"] == (2 if run["arm"] == "saq" else 1)
        assert measured["step_cost"]["seconds"] > 0

    # An ordinary run: every verb takes it, and the study takes up what is done.
    assert saq_qat("eval", "studies/small/runs/saq-seed3", "--checkpoint", "last") == 0
    assert saq_qat("study", "study.yaml") == 0
    assert "2 runs, 2 done, 0 to do" in capsys.readouterr().err
    assert saq_qat("study", "study.yaml", "--json") == 0
    assert capsys.readouterr().out == (folder / "studies/small/study.json").read_text()
    assert saq_qat("study", "--report", "studies/small") == 0
    assert "one pair of seeds" in capsys.readouterr().out
    assert saq_qat("study", "--report", "studies/small", "--json") == 0
    assert capsys.readouterr().out == (folder / "studies/small/study.json").read_text()
    assert (folder / "studies/small/study.html").read_text().startswith("<!doctype html>")


def test_mistakes_are_named_before_anything_is_written(
    folder: Path, saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saq_qat("study", "nothing.yaml") == 2
    assert saq_qat("study", "study.yaml", "data.kindd=digits") == 2
    assert saq_qat("study", "study.yaml", "seed=1") == 2
    assert saq_qat("study", "--report", "study.yaml", "data.workers=1") == 2
    assert saq_qat("study", "--report", "study.yaml") == 3
    assert "studies/small/study.json: no such file" in capsys.readouterr().err
    (folder / "study.yaml").write_text(STUDY.replace(", equal_compute: saq", ""))
    assert saq_qat("study", "study.yaml") == 2
    assert "arms.twice.differs_in: [schedule]" in capsys.readouterr().err
    assert not (folder / "studies").exists()


@pytest.mark.slow  # trains 40 epochs twice over for each signal
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_study_that_ends_in_the_middle_leaves_no_process_and_goes_on(folder: Path, number: int) -> None:
    recipe = SMALL_RECIPE.replace("epochs: 1", "epochs: 40")
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "study.yaml").write_text(STUDY.replace("epochs: 2", "epochs: 80"))
    program = "from saq_qat.cli.main import main; main()"
    command = [sys.executable, "-c", program, "study", "study.yaml"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE) as study:
        while not list(folder.glob("studies/small/runs/*/*/checkpoints/last")):
            assert study.poll() is None
            time.sleep(0.2)
        study.send_signal(number)
        study.communicate()
    assert study.returncode == (-number if number == signal.SIGKILL else 128 + number)
    until = time.monotonic() + 60
    while others_in(folder):
        assert time.monotonic() < until, "a process is left"
        time.sleep(0.2)
    before = {recipe.parent.name for recipe in folder.glob("studies/small/runs/*/*/resolved.yaml")}
    assert before and not (folder / "studies/small/study.json").exists()
    subprocess.run(command, cwd=folder, check=True)
    result = json.loads((folder / "studies/small/study.json").read_text())
    assert {run["run"].rpartition("/")[2] for run in result["runs"]} >= before
    for run in result["runs"]:
        lines = (folder / "studies/small" / run["run"] / "log.jsonl").read_text().splitlines()
        epochs = [json.loads(line)["epoch"] for line in lines if '"event": "epoch"' in line]
        assert epochs == list(range(1, len(epochs) + 1)), "every epoch once"


def others_in(folder: Path) -> list[int]:
    """Processes that work in a folder, this one apart."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "cwd").readlink() == folder
        except OSError:  # it has ended, or is somebody else's
            continue
        if inside and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def test_a_command_whose_parent_is_gone_stops(folder: Path) -> None:
    recipe = SMALL_RECIPE.replace("epochs: 1", "epochs: 1000")
    (folder / "recipe.yaml").write_text(recipe)
    with subprocess.Popen(
        [*COMMAND, "train", "recipe.yaml", "deploy.targets=[]"],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip  # one value a line is a page
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline().startswith(b"run ")
        process.stdin.close()
        process.stdin = None
        _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
