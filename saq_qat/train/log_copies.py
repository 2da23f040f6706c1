"""Copies of a run's log for other readers: a table, and TensorBoard.

log.jsonl stays the source. A copy is begun anew from its lines by each process that takes a run up, so that
a run that went on has every line once, whatever a process wrote before it was killed.
"""

import csv
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from saq_qat.errors import SaqError, SetupError
from saq_qat.recipe.schema import LogCopyName

__all__ = ["COLUMNS", "LogCopy", "check_log_copies", "open_copies"]

COLUMNS = (
    *("event", "step", "stage", "form", "epoch", "loss", "perturbed_loss", "lr", "gradient_norm"),
    *(
        "epsilon_norm",
        "cosine",
        "step_cosine",
        "images_per_second",
        "top1",
        "top5",
        "val_loss",
        "deploy_top1",
    ),
    *("best", "waited", "step_seconds", "seconds"),
)
"""Of log.csv: every number of the log but those of single layers; empty where a line has none."""

_EVENTS = ("step", "skipped", "epoch", "end")
"""Events whose lines hold the numbers of a training."""

_PLACE = ("event", "step", "stage", "form", "epoch")
_BY_LAYER = ("clip_levels", "clipped_weights")


class LogCopy(Protocol):
    """Who is given every line of the log."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Take up one line; others than those of a training's numbers are passed over."""

    def close(self) -> None:
        """Write what is still to be written."""


def check_log_copies(names: Iterable[LogCopyName]) -> None:
    """Whether all copies that a recipe asks for can be written here.

    Raises:
        SetupError: the package tensorboard is missing.
    """
    if "tensorboard" in names and find_spec("tensorboard") is None:
        raise SetupError(
            "train.logs: tensorboard needs the package tensorboard, which is not installed. Install it: pip "
            "install 'saq-qat[tensorboard]'; or take csv."
        )


def open_copies(folder: Path, names: Iterable[LogCopyName]) -> list[LogCopy]:
    """New, empty copies in the folder of a run, in the place of older ones.

    Raises:
        SetupError: as ``check_log_copies``.
        SaqError: the disk is full, the folder cannot be written, or log.csv is no regular file.
    """
    check_log_copies(names)
    table = folder / "log.csv"
    if "csv" in names and table.exists() and not table.is_file():
        raise SaqError(
            f"{table}: must be a regular file, and something else stands in its place. Remove it, or have no "
            "copies of the log (train.logs: [])."
        )
    try:
        return [_COPIES[name](folder) for name in names]
    except OSError as error:
        raise SaqError(
            f"{error.filename or folder}: cannot be written: {error.strerror}. Checkpoints are intact; free "
            "some space, or have no copies of the log (train.logs: [])."
        ) from error


class _Table:
    """log.csv, a line for each."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "log.csv").open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(
            self._file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n"
        )
        self._writer.writeheader()

    def write(self, line: Mapping[str, Any]) -> None:
        if line["event"] in _EVENTS:
            self._writer.writerow(line)
            self._file.flush()

    def close(self) -> None:
        self._file.close()


class _TensorBoard:
    """tensorboard/, with a curve for each number: step/loss, epoch/top1, clip_levels/LAYER and so on."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        own = folder / "tensorboard"
        for older in own.glob("events.out.tfevents.*"):
            older.unlink()
        # Told to purge from the first step on, a TensorBoard that is open drops what it had read of those.
        self._writer: Any = SummaryWriter(str(own), purge_step=0)

    def write(self, line: Mapping[str, Any]) -> None:
        if line["event"] not in _EVENTS:
            return
        for tag, value in _scalars(line):
            self._writer.add_scalar(tag, value, line["step"])
        if line["event"] != "step":
            self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _scalars(line: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for key, value in line.items():
        if key in _BY_LAYER:
            yield from ((f"{key}/{name}", number) for name, number in value.items() if number is not None)
        elif key not in _PLACE and value is not None:
            yield f"{line['event']}/{key}", value


_COPIES: dict[LogCopyName, Callable[[Path], LogCopy]] = {"csv": _Table, "tensorboard": _TensorBoard}
