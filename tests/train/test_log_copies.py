"""Copies of the log hold what the log holds: each line once, however often a run went on."""

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saq_qat.errors import SaqError, SetupError
from saq_qat.recipe.schema import Recipe
from saq_qat.train import log_copies
from saq_qat.train.log import read_log
from saq_qat.train.log_copies import COLUMNS, check_log_copies, open_copies
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from tests.train.small_recipe import small_recipe
from tests.train.stopping import sigterm_at

NUMBERS = ("step", "skipped", "epoch", "end")
STAGES = "train.stages=[{kind: float, epochs: 1, lr: 0.1}, {kind: quantized, epochs: 2, lr: 0.1}]"


def recipe(*logs: str) -> Recipe:
    saq = "train.stages.1.method={kind: saq, rho: 0.1}"
    return small_recipe(STAGES, saq, f"train.logs=[{', '.join(logs)}]")


def test_a_pipe_in_place_of_the_table_is_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.csv")
    with pytest.raises(SaqError, match=r"log\.csv: must be a regular file.*Remove it"):
        open_copies(tmp_path, ("csv",))


def logged(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(folder / "log.jsonl") if line["event"] in NUMBERS]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers_of(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Of one line of the log, those that TensorBoard shows."""
    for key, value in line.items():
        if isinstance(value, dict):
            yield from ((f"{key}/{name}", number) for name, number in value.items())
        elif key not in ("event", "step", "stage", "form", "epoch"):
            yield f"{line['event']}/{key}", value


def curves(folder: Path) -> list[tuple[str, int, float]]:
    """What a TensorBoard reads, in float32."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0})
    found.Reload()
    tags = found.Tags()["scalars"]
    return sorted((tag, point.step, point.value) for tag in tags for point in found.Scalars(tag))


def assert_same(folder: Path) -> None:
    """The table holds the log's numbers, and nothing else."""
    rows = table(folder)
    lines = logged(folder)
    assert [(row["event"], int(row["step"])) for row in rows] == [(x["event"], x["step"]) for x in lines]
    for row, line in zip(rows, lines, strict=True):
        plain = {key: value for key, value in line.items() if not isinstance(value, dict)}
        assert set(plain) <= set(COLUMNS)
        assert row == {key: "" if plain.get(key) is None else str(plain[key]) for key in COLUMNS}


def test_the_table_holds_every_number_of_the_log(tmp_path: Path) -> None:
    run_training(recipe("csv"), tmp_path)
    assert_same(tmp_path)
    assert {"step", "epoch", "end"} == {row["event"] for row in table(tmp_path)}
    assert not (tmp_path / "tensorboard").exists()


def test_a_run_that_goes_on_has_no_line_twice(tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError):
        run_training(recipe("csv"), tmp_path, on_progress=sigterm_at(3))
    assert_same(tmp_path)
    with (tmp_path / "log.csv").open("a") as file:
        file.write("step,4,quantized,,1,0.1\nstep,5,qu")  # after the last checkpoint, and cut short
    run_training(recipe("csv"), tmp_path, resume=True)
    assert_same(tmp_path)
    run_training(recipe("csv"), tmp_path, resume=True)
    assert_same(tmp_path)


def test_a_run_may_go_on_with_other_copies(tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError):
        run_training(recipe(), tmp_path, on_progress=sigterm_at(3))
    assert not (tmp_path / "log.csv").exists()
    run_training(recipe("csv"), tmp_path, resume=True)
    assert_same(tmp_path)


def test_tensorboard_shows_every_number_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    with pytest.raises(TrainingStoppedError):
        run_training(recipe("tensorboard"), tmp_path, on_progress=sigterm_at(3))
    run_training(recipe("tensorboard"), tmp_path, resume=True)
    found = curves(tmp_path)
    expected = sorted(
        (tag, line["step"], value) for line in logged(tmp_path) for tag, value in numbers_of(line)
    )
    assert [point[:2] for point in found] == [point[:2] for point in expected]
    assert [point[2] for point in found] == pytest.approx([point[2] for point in expected], rel=1e-6)
    tags = {tag for tag, _, _ in found}
    assert {"step/loss", "step/lr", "epoch/top1", "epoch/deploy_top1"} <= tags
    assert any(tag.startswith("clip_levels/") for tag in tags)


def test_without_the_package_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_copies, "find_spec", lambda _name: None)
    check_log_copies(["csv"])
    with pytest.raises(SetupError, match=r"pip install 'saq-qat\[tensorboard\]'"):
        check_log_copies(["csv", "tensorboard"])


def test_a_copy_is_named_once() -> None:
    with pytest.raises(Exception, match="names each copy once"):
        recipe("csv", "csv")


def test_the_package_is_not_loaded_for_a_table(tmp_path: Path) -> None:
    before = "tensorboard" in sys.modules
    run_training(recipe("csv"), tmp_path)
    assert ("tensorboard" in sys.modules) == before
