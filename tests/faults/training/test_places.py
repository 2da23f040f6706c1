"""Folders of odd names, folders that are none, and a folder that vanishes while it is trained in."""

import shutil
from pathlib import Path

import pytest

from saq_qat.errors import SaqError
from saq_qat.train.progress import Progress
from saq_qat.train.run import run_training
from tests.faults.training.recipes import faulty_recipe

LAST = Path("checkpoints", "last", "model.safetensors")


@pytest.mark.parametrize("name", ["two words", "größer, 模型", "line\nbreak", "100%", "-x", "a" * 200])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    recipe = faulty_recipe("train.stages.0.epochs=1", "data.train_size=16")
    run_training(recipe, tmp_path / name / "run")
    run_training(recipe, tmp_path / "plain")
    assert (tmp_path / name / "run" / LAST).read_bytes() == (tmp_path / "plain" / LAST).read_bytes()


def test_a_folder_that_cannot_be_made_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file" / "run", tmp_path / "file", tmp_path / ("a" * 300)):
        with pytest.raises(
            SaqError, match=r"(Not a directory|File exists|File name too long).*another folder"
        ):
            run_training(faulty_recipe(), folder)


def test_a_folder_that_vanishes_ends_the_training_in_words(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def vanish(state: Progress) -> None:
        if state.step == 2:
            shutil.rmtree(run)

    with pytest.raises(SaqError, match=r"cannot be written: No such file or directory"):
        run_training(faulty_recipe("train.checkpoint_steps=3"), run, on_progress=vanish)
