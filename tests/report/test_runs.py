"""The list of runs: whatever state they are in, in a moment, and one broken run hides no other."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from saq_qat.report.collect import Collected
from saq_qat.report.run_comparison import compare_runs, comparison_lines
from saq_qat.report.runs import RunState, find_runs, outline, sizes_of
from saq_qat.report.runs_text import outline_lines, runs_lines
from saq_qat.train.choose import choose_checkpoint
from saq_qat.train.files import locked

STEP = {"event": "step", "step": 7, "stage": "quantized", "epoch": 2, "loss": 1.0}


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "tiny" / "20261130-120000-00ff")


def end_with(run: Path, event: str, **values: object) -> None:
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps({"event": event, "step": 8, **values}) + "\n")


def test_a_finished_run_has_the_accuracy_of_what_commands_take(copy: Path) -> None:
    found = outline(copy)
    assert (found.state, found.stage, found.epoch, found.exported) == ("finished", "quantized", 1, True)
    assert found.checkpoint == choose_checkpoint(copy).taken
    files = [file for file in copy.rglob("*") if file.is_file()]
    assert found.bytes == sum(file.stat().st_size for file in files)
    assert sum(sizes_of(copy).values()) == found.bytes


@pytest.mark.parametrize(
    ("event", "state"),
    [("stopped", "stopped"), ("diverged", "diverged"), ("failed", "failed"), ("step", "stopped")],
)
def test_the_state_is_how_the_log_ends(copy: Path, event: str, state: RunState) -> None:
    end_with(copy, event, reason="why")
    found = outline(copy)
    assert (found.state, found.reason) == (state, "why")


def test_a_run_that_is_held_is_running_whatever_its_log_says(copy: Path) -> None:
    end_with(copy, "diverged", reason="why")
    with locked(copy):
        assert (outline(copy).state, outline(copy).reason) == ("running", None)


def test_a_line_cut_short_by_a_kill_is_passed_over(copy: Path) -> None:
    end_with(copy, "step", stage="quantized", epoch=1)
    with (copy / "log.jsonl").open("a") as file:
        file.write('{"event": "st')
    assert outline(copy).state == "stopped"


def test_a_long_log_is_read_at_its_end_alone(copy: Path) -> None:
    (copy / "log.jsonl").write_text((json.dumps(STEP) + "\n") * 5000)
    end_with(copy, "end")
    found = outline(copy)
    assert (found.state, found.stage, found.epoch, found.step) == ("finished", "quantized", 2, 8)


def test_a_run_before_its_first_step_is_stopped(tmp_path: Path, copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints")
    shutil.rmtree(copy / "export")
    (copy / "log.jsonl").unlink()
    found = outline(copy)
    assert (found.state, found.stage, found.checkpoint, found.exported) == ("stopped", None, None, False)
    assert found.trouble is None


def test_a_broken_run_is_listed_with_what_is_wrong(copy: Path) -> None:
    (copy / "checkpoints" / "best" / "state.json").write_text("{")
    found = outline(copy)
    assert found.trouble is not None and "state.json" in found.trouble
    (copy / "resolved.yaml").write_text("version: 99")
    assert outline(copy).trouble is not None
    text = "\n".join(runs_lines([found]))
    assert f"  {copy.name}: {copy}"[:70] in text and "finished" in text


def test_runs_are_found_in_folders_of_recipes_and_by_other_names(copy: Path, tmp_path: Path) -> None:
    renamed = shutil.copytree(copy, tmp_path / "kept")
    (tmp_path / "tiny" / "notes").mkdir()
    older = shutil.copytree(copy, tmp_path / "tiny" / "20261129-120000-00ff")
    assert find_runs(tmp_path) == [renamed, older, copy]
    assert find_runs(copy) == [copy]
    assert find_runs(tmp_path / "nowhere") == []


def test_lines_fit_eighty_columns(copy: Path) -> None:
    end_with(copy, "diverged", reason="a long reason \x1b[31m with\nlines " * 9)
    found = dataclasses.replace(outline(copy), run="runs/tiny/20261130-120000-00ff", bytes=123_456_789_000)
    lines = [*runs_lines([found]), *outline_lines(found, {"checkpoints": 10**9, "export": 10**8})]
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    assert lines[-1].split() == ["next", "saq-qat", "train", "--resume", found.run]


def test_runs_differ_in_what_differs(complete: Collected, copy: Path) -> None:
    recipe = complete.recipe.model_copy(update={"seed": 5})
    other = dataclasses.replace(complete, recipe=recipe, run=copy, bench=None)
    comparison = compare_runs([complete, other])
    assert [(row.name, row.values) for row in comparison.recipe] == [("seed", (complete.recipe.seed, 5))]
    results = {row.name: row.values for row in comparison.results}
    own, others = results["latency on the CPU, ms"]
    assert own == pytest.approx(10, rel=0.01) and others is None
    assert results["state"] == ("finished", "finished")
    same = compare_runs([complete, complete])
    assert same.recipe == () and "Recipe: no difference" in list(comparison_lines(same))


def test_four_runs_fit_eighty_columns(complete: Collected) -> None:
    seeds = [complete.recipe.model_copy(update={"seed": seed}) for seed in range(4)]
    runs = [dataclasses.replace(complete, recipe=recipe) for recipe in seeds]
    assert all(len(line) <= 80 for line in list(comparison_lines(compare_runs(runs)))[4:])
