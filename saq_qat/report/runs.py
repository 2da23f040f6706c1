"""What a folder of runs holds, read in a moment: of each run its state, its accuracy and its size."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from saq_qat.errors import SaqError
from saq_qat.train.choose import Standing, glance
from saq_qat.train.files import is_locked
from saq_qat.train.folder import RESOLVED
from saq_qat.train.log import log_tail

__all__ = ["RunOutline", "RunState", "find_runs", "outline", "sizes_of"]

RunState = Literal["running", "stopped", "finished", "diverged", "failed"]
"""``stopped``: by a signal, a kill or a power cut; ``failed``: by an error; either goes on with --resume."""

_ENDED: dict[str, RunState] = {"end": "finished", "diverged": "diverged", "failed": "failed"}


@dataclass(frozen=True)
class RunOutline:
    """A run as a list shows it.

    Attributes:
        run: its folder.
        reason: of a state that is no good end; None where the log gives none.
        stage, epoch: the last that the log speaks of; None before the first.
        step: optimizer steps that the log speaks of.
        checkpoint: that commands take, as training found it; None before the first.
        exported: whether it has a bundle.
        bytes: of all its files.
        trouble: why something of the above could not be read; None if all could.
    """

    run: str
    state: RunState
    reason: str | None
    stage: str | None
    epoch: int | None
    step: int
    checkpoint: Standing | None
    exported: bool
    bytes: int
    trouble: str | None


def find_runs(root: Path) -> list[Path]:
    """The runs in ``root``, in it or in folders of recipes, ordered by folder and name: the oldest first."""
    folders = [root, *root.glob("*"), *root.glob("*/*")]
    found = [folder for folder in folders if (folder / RESOLVED).is_file()]
    return sorted(found, key=lambda run: (str(run.parent), run.name))


def outline(run: Path) -> RunOutline:
    """What there is to know of a run without reading its weights; what cannot be read is told, not raised."""
    log = run / "log.jsonl"
    lines = log_tail(log) if log.is_file() else []
    last: dict[str, Any] = lines[-1] if lines else {}
    epochs = [line for line in lines if "epoch" in line]
    checkpoint, trouble = _checkpoint(run)
    state = _state(run, last)
    return RunOutline(
        run=str(run),
        state=state,
        reason=last.get("reason") if state != "running" else None,
        stage=epochs[-1]["stage"] if epochs else None,
        epoch=epochs[-1]["epoch"] if epochs else None,
        step=last.get("step", 0),
        checkpoint=checkpoint,
        exported=(run / "export" / "manifest.json").is_file(),
        bytes=sum(sizes_of(run).values()),
        trouble=trouble,
    )


def _checkpoint(run: Path) -> tuple[Standing | None, str | None]:
    """The checkpoint that commands take, and why it cannot be read."""
    try:
        return glance(run), None
    except SaqError as error:
        return None, str(error)


def _state(run: Path, last: dict[str, Any]) -> RunState:
    return "running" if is_locked(run) else _ENDED.get(last.get("event", ""), "stopped")


def sizes_of(run: Path) -> dict[str, int]:
    """Bytes of each file and folder of a run, by name, the largest first; links count for themselves."""
    sizes = {entry.name: sum(_sizes(entry)) for entry in os.scandir(run)}
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _sizes(entry: "os.DirEntry[str]") -> Iterator[int]:
    try:
        if not entry.is_dir(follow_symlinks=False):
            yield entry.stat(follow_symlinks=False).st_size
            return
        for inner in os.scandir(entry):
            yield from _sizes(inner)
    except FileNotFoundError:
        return  # a training that runs replaces its checkpoints
