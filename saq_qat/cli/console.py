"""What the verbs share: progress, tables and finding a run."""

import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from saq_qat.errors import ArtifactError
from saq_qat_runtime.bundle.result_files import result_json

__all__ = ["JobProgress", "newest_run", "print_json", "progress", "resolve_run", "table"]

LINE_SECONDS = 10.0
FILE_WIDTH = 200
_NARROW_BAR, _WIDE_BAR, _BESIDE_BAR = 8, 40, 84  # what a note needs is taken from the bar
_RUN_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
_RECIPE_FILE = "resolved.yaml"


class JobProgress(ABC):
    """A long job's progress on stderr."""

    @abstractmethod
    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        """Count ``steps`` more as done; a note such as the loss, or a total, replaces the last one."""

    @abstractmethod
    def say(self, line: str) -> None:
        """Print a line that stays, above the bar if there is one."""


class _Bar(JobProgress):
    def __init__(self, bar: RichProgress, label: str, total: int | None) -> None:
        self._bar = bar
        self._task = bar.add_task(label, total=total, note="")

    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        self._bar.advance(self._task, steps)
        if total is not None:
            self._bar.update(self._task, total=total)
        if note:
            self._bar.update(self._task, note=note)

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False)


class _Lines(JobProgress):
    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total = label, total
        self._done, self._note = 0, ""
        self._start = self._printed = time.monotonic()

    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        self._done += steps
        self._note = note or self._note
        self._total = self._total if total is None else total
        if time.monotonic() - self._printed >= LINE_SECONDS:
            self.show()

    def show(self) -> None:
        self._printed = time.monotonic()
        seconds = f"{self._printed - self._start:.1f} s"
        if self._note and self._total is None:
            self.say(f"{self._label}: {self._note} ({seconds})")
            return
        total = "" if self._total is None else f"/{self._total}"
        note = f"  {self._note}" if self._note else ""
        self.say(f"{self._label}: {self._done}{total} in {seconds}{note}")

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[JobProgress]:
    """Show on stderr how far a job of ``total`` steps is: a bar on a terminal, else lines now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines(label, total)
        try:
            yield lines
        finally:
            lines.show()
        return
    bar_width = max(_NARROW_BAR, min(_WIDE_BAR, console.width - _BESIDE_BAR))
    columns = (
        TextColumn("{task.description}", markup=False),
        *([] if total is None else [BarColumn(bar_width)]),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with RichProgress(*columns, console=console) as bar:
        yield _Bar(bar, label, total)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table to stdout, with rich markup; outside a terminal wide enough that nothing is cut."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_WIDTH)
    if title is not None:
        console.print(title, markup=False, highlight=False, soft_wrap=True)
    content = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        content.add_row(*row)
    console.print(content)


def print_json(value: Mapping[str, Any], what: str) -> None:
    """Print one JSON document to stdout, and nothing else.

    Raises:
        ResultError: a number is not finite; names ``what`` and the number.
    """
    sys.stdout.write(result_json(value, what))


def newest_run(root: Path = Path("runs")) -> Path:
    """The folder of the run that started last, of any recipe, below ``root``.

    Raises:
        ArtifactError: If there is none.
    """
    runs = [folder for folder in [*root.glob("*"), *root.glob("*/*")] if _is_run(folder)]
    if not runs:
        raise ArtifactError(
            f"no run in {root}/; train one with 'saq-qat train recipe.yaml', or name its folder"
        )
    return max(runs, key=lambda run: (run.name, run.stat().st_mtime))


def resolve_run(argument: Path | None) -> Path:
    """The run a user means: a run's folder, a recipe's folder under runs/ (its newest), or the newest of all.

    Raises:
        ArtifactError: If ``argument`` is no folder of a run.
    """
    if argument is None:
        return newest_run()
    if (argument / _RECIPE_FILE).is_file():
        return argument
    if not argument.is_dir():
        raise ArtifactError(f"{argument}: no such folder; 'saq-qat train' prints the folder of its run")
    if any(map(_is_run, argument.iterdir())):
        return newest_run(argument)
    raise ArtifactError(
        f"{argument} is no run: it has no {_RECIPE_FILE}; name a folder that 'saq-qat train' made"
    )


def _is_run(folder: Path) -> bool:
    return _RUN_NAME.fullmatch(folder.name) is not None and (folder / _RECIPE_FILE).is_file()
