"""A loader process that dies: named with its signal and its image, replaced once, and nothing is lost."""

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytest import MonkeyPatch

from saq_qat.errors import DataError
from saq_qat.patience import TIMEOUT_VARIABLE
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import read_checkpoint
from saq_qat.train.files import locked
from saq_qat.train.run import run_training
from saq_qat_runtime import preprocess
from tests.faults.training.recipes import faulty_recipe

LAST = Path("checkpoints", "last", "model.safetensors")
Deadly = Callable[[int], None]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 4)):
        for label in ("ant", "bee"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def of_photos(photos: Path, workers: int) -> Recipe:
    """Crops of each image are decoded when they are needed, in the process that prepares the batch."""
    data = f"{{kind: imagefolder, root: {photos}, image_size: 8, augmentation: resized_crop_flip}}"
    stages = "[{kind: float, epochs: 2, lr: 0.01}]"
    return faulty_recipe(
        f"data={data}", f"data.workers={workers}", f"train.stages={stages}", "train.batch_size=8"
    )


def deadly(monkeypatch: MonkeyPatch, name: str, end: Deadly, *, times: Path | None = None) -> None:
    """Let each process end that decodes the image of that name; once, if ``times`` is a file to note it."""
    decode = preprocess.open_undecoded

    def open_undecoded(path: Path) -> Image.Image:
        if str(path).endswith(name) and not (times is not None and times.exists()):
            if times is not None:
                times.write_text("once")
            end(os.getpid())
        return decode(path)

    monkeypatch.setattr(preprocess, "open_undecoded", open_undecoded)


ENDS: dict[str, tuple[Deadly, str]] = {
    "killed": (lambda process: os.kill(process, signal.SIGKILL), r"by signal 9 \(SIGKILL\)"),
    "crashed": (lambda process: os.kill(process, signal.SIGABRT), r"by signal 6 \(SIGABRT\)"),
    "left": (lambda _: os._exit(7), "with exit code 7"),
}


@pytest.mark.parametrize(
    ("end", "said"),
    [
        # Two trainings each: the kill is the quick one, for what is told of an end alone differs.
        pytest.param(*end, id=name, marks=() if name == "killed" else pytest.mark.slow)
        for name, end in ENDS.items()
    ],
)
def test_a_worker_that_dies_twice_at_an_image_is_named_and_the_training_stops_saved(
    photos: Path, tmp_path: Path, monkeypatch: MonkeyPatch, end: Deadly, said: str
) -> None:
    whole = tmp_path / "whole"
    run_training(of_photos(photos, 0), whole)
    with monkeypatch.context() as patched:
        deadly(patched, "train/bee/7.png", end)
        place = rf"Loader process \d of 2 \(pid \d+\) was ended {said}, at batch \d of .*'.*bee/7\.png'"
        with (
            pytest.warns(UserWarning, match=f"{place}.*prepared once more"),
            pytest.raises(DataError, match=rf"(?s){place}.*second time.*train --resume") as stopped,
        ):
            run_training(of_photos(photos, 2), tmp_path / "run")
    assert stopped.value.exit_code == 3
    assert 0 <= read_checkpoint(tmp_path / "run" / "checkpoints" / "last").position.step < 5
    run_training(of_photos(photos, 2), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / LAST).read_bytes() == (whole / LAST).read_bytes()


def test_a_worker_that_dies_once_costs_a_warning_and_no_bit(
    photos: Path, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    run_training(of_photos(photos, 0), tmp_path / "whole")
    end, said = ENDS["killed"]
    deadly(monkeypatch, "train/bee/7.png", end, times=tmp_path / "noted")
    with pytest.warns(UserWarning, match=said):
        run_training(of_photos(photos, 2), tmp_path / "run")
    assert (tmp_path / "run" / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()


def test_workers_that_hang_are_named_and_the_training_stops_saved(
    photos: Path, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    run_training(of_photos(photos, 0), tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setenv(TIMEOUT_VARIABLE, "6")
        deadly(patched, "train/bee/7.png", lambda process: os.kill(process, signal.SIGSTOP))
        said = r"within 6 s \(SAQ_QAT_TIMEOUT.*pid \d+ is at batch \d of .*'.*bee/7\.png'.*train --resume"
        with pytest.raises(DataError, match=said):
            run_training(of_photos(photos, 1), tmp_path / "run")
    run_training(of_photos(photos, 2), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()


def test_a_damaged_image_stops_the_training_behind_a_checkpoint(photos: Path, tmp_path: Path) -> None:
    damaged = photos / "train" / "ant" / "3.png"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"ant/3\.png.*train --resume"):
        run_training(of_photos(photos, 0), tmp_path / "run")
    damaged.write_bytes(content)
    run_training(of_photos(photos, 0), tmp_path / "run", resume=True)
    run_training(of_photos(photos, 0), tmp_path / "whole")
    assert (tmp_path / "run" / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()


@pytest.mark.slow  # ten deaths, each noticed within seconds
def test_workers_that_die_now_and_then_never_end_a_training(
    photos: Path, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    decode = preprocess.open_undecoded

    def open_undecoded(path: Path) -> Image.Image:
        mark = tmp_path / f"{path.parent.name}-{path.name}"
        if path.stem[-1] in "37" and path.parent.parent.name == "train" and not mark.exists():
            mark.write_text("once")
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(path)

    run_training(of_photos(photos, 0), tmp_path / "whole")
    monkeypatch.setattr(preprocess, "open_undecoded", open_undecoded)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        while not _goes_to_its_end(photos, tmp_path / "run"):
            pass
    assert told
    assert (tmp_path / "run" / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()


def _goes_to_its_end(photos: Path, run: Path) -> bool:
    """Two that die at the same batch stop the training; it goes on as its user would."""
    try:
        run_training(of_photos(photos, 2), run, resume=run.exists())
    except DataError:
        return False
    return True


def test_a_loader_that_outlives_its_training_holds_no_folder(tmp_path: Path) -> None:
    """As for seconds after a kill: the next process may take the folder up at once."""
    with locked(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=signal.pause, daemon=True)
        child.start()
    with locked(tmp_path):
        assert child.is_alive()
    child.kill()
    child.join()
