"""What the verbs share: progress, tables and finding a run."""

import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column, Table
from rich.text import Text

from saq_qat.errors import ArtifactError
from saq_qat_runtime.bundle.result_files import result_json
from saq_qat_runtime.report.narrow import COLUMNS, column_lines

__all__ = [
    "JobProgress",
    "is_quiet",
    "newest_run",
    "print_file",
    "print_json",
    "progress",
    "quietly",
    "resolve_run",
    "table",
]

LINE_SECONDS = 10.0
_NARROW_BAR, _WIDE_BAR, _BESIDE_BAR = 8, 40, 84  # what a note needs is taken from the bar
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
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

    def tell(self, line: str) -> None:
        """Print a line of what the job has found to stdout."""
        print(line, flush=True)


class _Quiet(JobProgress):
    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        """Nobody wants to know."""

    def say(self, line: str) -> None:
        """Nobody wants to know."""


class _Bar(JobProgress):
    def __init__(self, bar: RichProgress, label: str, total: int | None, done: int) -> None:
        self._bar = bar
        self._task = bar.add_task(label, total=total, completed=done, note="")

    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        self._bar.advance(self._task, steps)
        if total is not None:
            self._bar.update(self._task, total=total)
        if note:
            self._bar.update(self._task, note=note)

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False)

    def tell(self, line: str) -> None:
        # On the terminal of the bar, a line that does not pass through its console leaves the bar behind.
        if sys.stdout.isatty():
            self.say(line)
        else:
            super().tell(line)


class _Lines(JobProgress):
    def __init__(self, label: str, total: int | None, done: int) -> None:
        self._label, self._total = label, total
        self._before = self._done = done
        self._note = ""
        self._start = self._printed = time.monotonic()

    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        self._done += steps
        self._note = note or self._note
        self._total = self._total if total is None else total
        if time.monotonic() - self._printed >= LINE_SECONDS:
            self.show()

    def show(self) -> None:
        self._printed = time.monotonic()
        seconds = self._printed - self._start
        if self._note and self._total is None:
            self.say(f"{self._label}: {self._note} ({seconds:.1f} s)")
            return
        total = "" if self._total is None else f"/{self._total}"
        note = f"  {self._note}" if self._note else ""
        self.say(f"{self._label}: {self._done}{total} in {seconds:.1f} s{self._left(seconds)}{note}")

    def _left(self, seconds: float) -> str:
        """The time that is left, by the pace of this process so far; what an earlier one did counts not."""
        made = self._done - self._before
        if self._total is None or not made or self._done >= self._total:
            return ""
        return f", {seconds / made * (self._total - self._done):.0f} s left"

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _Count(MofNCompleteColumn):
    """Steps of how many; nothing while that is not known."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class _Left(TimeRemainingColumn):
    """The time that is left, told apart from the time that has passed by its word."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text() if not left or task.finished else super().render(task).append(" left")


@contextmanager
def progress(label: str, total: int | None = None, done: int = 0) -> Iterator[JobProgress]:
    """Show on stderr how far a job of ``total`` steps is: a bar on a terminal, else lines now and then.

    Args:
        done: steps that were made before, by a process that this one goes on from.
    """
    console = Console(stderr=True)
    if is_quiet():
        yield _Quiet()
        return
    if not console.is_terminal:
        lines = _Lines(label, total, done)
        try:
            yield lines
        finally:
            lines.show()
        return
    # What goes to a file must not be drawn to the terminal of the bar in its place.
    bar = RichProgress(
        *_columns(console.width), console=console, expand=True, redirect_stdout=sys.stdout.isatty()
    )
    with bar:
        yield _Bar(bar, label, total, done)


def _columns(width: int) -> list[ProgressColumn]:
    """Of a bar on a terminal of so many columns: a note that is longer than the rest of the line is cut."""
    room = min(_WIDE_BAR, width - _BESIDE_BAR)
    bar: list[ProgressColumn] = [BarColumn(room)] if room >= _NARROW_BAR else []
    note = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return [
        TextColumn("{task.description}", markup=False),
        *bar,
        _Count(),
        TimeElapsedColumn(),
        _Left(compact=True),
        TextColumn("{task.fields[note]}", markup=False, table_column=note),
    ]


def is_quiet() -> bool:
    """Whether the user wants results and errors alone: ``--quiet``."""
    return _QUIET.get()


@contextmanager
def quietly(asked: bool) -> Iterator[None]:
    """In this context nothing is shown of how far a job is, if ``asked``."""
    token = _QUIET.set(asked)
    try:
        yield
    finally:
        _QUIET.reset(token)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table to stdout, with rich markup; outside a terminal 80 columns wide, and nothing is cut."""
    console = Console()
    if not console.is_terminal:
        print("\n".join([*([] if title is None else [title]), *_plain_table(columns, rows)]))
        return
    if title is not None:
        console.print(title, markup=False, highlight=False, soft_wrap=True)
    content = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        content.add_row(*row)
    console.print(content)


def _plain_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table without markup; what has no room stands below, beside the first column again."""
    first = len(columns[0])
    cells = [[Text.from_markup(cell).plain for cell in row] for row in rows]
    padded = [[row[0].ljust(first), *row[1:]] for row in cells]
    lines = column_lines(columns, padded, words=range(len(columns)), width=COLUMNS)
    return [columns[0] + lines[0][first:], *lines[1:]]


def print_json(value: Mapping[str, Any], what: str) -> None:
    """Print one JSON document to stdout, and nothing else.

    Raises:
        ResultError: a number is not finite; names ``what`` and the number.
    """
    sys.stdout.write(result_json(value, what))


def print_file(path: Path) -> None:
    """Print a JSON file that was just written to stdout, byte for byte."""
    sys.stdout.write(path.read_text(encoding="utf-8"))


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
