"""A disk that is full at any write: a sentence, a checkpoint to go on from, and the same weights at last."""

import errno
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from saq_qat.errors import SaqError
from saq_qat.recipe.schema import Recipe
from saq_qat.train.run import run_training
from tests.faults.training.recipes import faulty_recipe

LAST = Path("checkpoints", "last", "model.safetensors")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class FullDisk:
    """Refuses every opening for writing, every new folder and every new name below ``folder``, behind some.

    Python asks audit hooks before each; they cannot be removed, so there is one that is told when to refuse.
    """

    def __init__(self) -> None:
        self.folder = ""
        self.seen = 0
        self.free_for: int | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.free_for is None or not self._writes(event, arguments):
            return
        self.seen += 1
        if self.seen > self.free_for:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    def _writes(self, event: str, arguments: tuple[object, ...]) -> bool:
        if event not in ("open", "os.mkdir", "os.rename", "os.truncate"):
            return False
        if not str(arguments[0]).startswith(self.folder):
            return False
        return event != "open" or bool(int(str(arguments[2])) & _WRITING)


DISK = FullDisk()


@pytest.fixture
def disk() -> Iterator[FullDisk]:
    yield DISK
    DISK.free_for = None


def short() -> Recipe:
    """Two steps, and every kind of file that a training writes."""
    return faulty_recipe(
        "data.train_size=32", "train.stages.0.epochs=1", "train.checkpoint_steps=1", "train.logs=[csv]"
    )


def writes_of(run: Path, disk: FullDisk) -> int:
    """How often a whole training writes; the run stays for comparison."""
    disk.folder, disk.seen, disk.free_for = str(run), 0, 10**9
    run_training(short(), run)
    disk.free_for = None
    return disk.seen


def check_full_behind(writes: int, run: Path, whole: Path, disk: FullDisk) -> None:
    disk.folder, disk.seen, disk.free_for = str(run), 0, writes
    with pytest.raises(SaqError, match=r"No space left on device.*(free|Free) some space"):
        run_training(short(), run)
    disk.free_for = None
    assert not list(run.rglob("*.partial*")), "a temporary file stayed"
    run_training(short(), run, resume=True)
    assert (run / LAST).read_bytes() == (whole / LAST).read_bytes(), f"full behind write {writes}"


def test_a_disk_that_is_full_at_a_write_costs_no_checkpoint(tmp_path: Path, disk: FullDisk) -> None:
    whole = tmp_path / "whole"
    count = writes_of(whole, disk)
    for writes in range(1, count, 7):
        check_full_behind(writes, tmp_path / str(writes), whole, disk)


@pytest.mark.slow  # every one of some fifty writes
def test_a_disk_that_is_full_at_every_write_costs_no_checkpoint(tmp_path: Path, disk: FullDisk) -> None:
    whole = tmp_path / "whole"
    count = writes_of(whole, disk)
    for writes in range(1, count):
        check_full_behind(writes, tmp_path / str(writes), whole, disk)
    print(f"disk full at each of {count - 1} writes: nothing lost")


@pytest.mark.parametrize("limit", [10, 1000, 3000])
def test_a_file_that_is_cut_short_by_the_system_is_a_sentence(tmp_path: Path, limit: int) -> None:
    """As by a quota: the write itself fails, in the middle of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(SaqError, match=r"File too large.*(free|Free) some space"):
            run_training(short(), tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run_training(short(), tmp_path / "run", resume=True)
    run_training(short(), tmp_path / "whole")
    assert (tmp_path / "run" / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()
