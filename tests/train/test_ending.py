"""The last line of a log says how the training ended, and a training that goes on drops it."""

from pathlib import Path

import pytest

from saq_qat.errors import DivergedError
from saq_qat.recipe.schema import Recipe
from saq_qat.train.log import read_log
from saq_qat.train.progress import Progress
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from tests.train.small_recipe import INFINITE, small_recipe
from tests.train.stopping import sigterm_at


def recipe(*overrides: str) -> Recipe:
    return small_recipe("train.stages.0.epochs=2", *overrides)


def last_line(folder: Path) -> dict[str, object]:
    return read_log(folder / "log.jsonl")[-1]


def test_a_signal_is_logged_until_the_training_goes_on(tmp_path: Path) -> None:
    shown: list[Progress] = []
    with pytest.raises(TrainingStoppedError):
        run_training(recipe(), tmp_path, on_progress=sigterm_at(2))
    assert last_line(tmp_path) == {"event": "stopped", "step": 2, "reason": "a signal"}
    result = run_training(recipe(), tmp_path, resume=True, on_progress=shown.append)
    events = [line["event"] for line in read_log(tmp_path / "log.jsonl")]
    assert "stopped" not in events and events[-1] == "end"
    assert (result.steps, result.steps_now) == (4, 2)
    assert {state.first_step for state in shown} == {2}


def test_time_goes_on_where_the_run_was_left(tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError):
        run_training(recipe(), tmp_path, on_progress=sigterm_at(2))
    state = tmp_path / "checkpoints" / "last" / "state.json"
    before = float(state.read_text().split('"seconds": ')[1].split(",")[0])
    result = run_training(recipe(), tmp_path, resume=True)
    assert before > 0 and result.seconds > before
    assert last_line(tmp_path)["seconds"] == pytest.approx(result.seconds, abs=0.1)


def test_a_loss_that_diverges_is_logged_with_its_place(tmp_path: Path) -> None:
    stages = "train.stages=[{kind: float, epochs: 10, lr: 0.1}]"
    broken = small_recipe(*INFINITE, stages)
    with pytest.raises(DivergedError) as diverged:
        run_training(broken, tmp_path)
    line = last_line(tmp_path)
    assert (line["event"], line["reason"]) == ("diverged", str(diverged.value))


def test_any_other_error_is_logged_as_a_failure(tmp_path: Path) -> None:
    def fail(_state: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_training(recipe(), tmp_path, on_progress=fail)
    assert (last_line(tmp_path)["event"], last_line(tmp_path)["reason"]) == ("failed", "ZeroDivisionError")


def test_a_full_disk_hides_no_error(tmp_path: Path) -> None:
    def fail(_state: Progress) -> None:
        (tmp_path / "log.jsonl").unlink()
        (tmp_path / "log.jsonl").mkdir()  # which nobody can write to, root neither
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_training(recipe(), tmp_path, on_progress=fail)
