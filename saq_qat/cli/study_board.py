"""How far the runs of a study are: a live table on a terminal, lines elsewhere; both on stderr."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from saq_qat.analysis.study.jobs import Job
    from saq_qat.analysis.study.runner import OnStates, State

__all__ = ["board"]

_REFRESH_SECONDS, _LINE_SECONDS = 1.0, 60.0
_AT_WORK = ("train", "resume", "measure")
_WORDS = {
    "waiting": "-",
    "held": "waits for a process of before",
    "train": "trains",
    "resume": "goes on",
    "measure": "is measured",
    "done": "done",
    "diverged": "diverged",
    "failed": "failed",
}


@contextmanager
def board(jobs: "Sequence[Job]") -> "Iterator[OnStates]":
    """Show the states of jobs for as long as the context lasts."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(jobs, console)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield _LiveTable(jobs, live)


class _LiveTable:
    def __init__(self, jobs: "Sequence[Job]", live: Live) -> None:
        self._jobs, self._live = jobs, live
        self._details: dict[str, str] = {}
        self._shown = 0.0
        self._states: Mapping[str, State] = {}

    def __call__(self, states: "Mapping[str, State]") -> None:
        now = time.monotonic()
        if now - self._shown < _REFRESH_SECONDS and states == self._states:
            return
        self._shown, self._states = now, dict(states)
        _look_up(self._jobs, states, self._details)
        self._live.update(self._table(states), refresh=True)

    def _table(self, states: "Mapping[str, State]") -> Table:
        seeds = sorted({job.seed for job in self._jobs})
        cells = {(job.arm.name, job.seed): self._details[job.name] for job in self._jobs}
        title = f"{_finished(states)}/{len(states)} runs"
        content = Table("arm", *(f"seed {seed}" for seed in seeds), box=None, pad_edge=False, title=title)
        for arm in dict.fromkeys(job.arm.name for job in self._jobs):
            content.add_row(arm, *(cells.get((arm, seed), "") for seed in seeds))
        return content


class _Lines:
    def __init__(self, jobs: "Sequence[Job]", console: Console) -> None:
        self._jobs, self._console = jobs, console
        self._states: dict[str, State] = {}
        self._details: dict[str, str] = {}
        self._printed = time.monotonic()

    def __call__(self, states: "Mapping[str, State]") -> None:
        late = time.monotonic() - self._printed >= _LINE_SECONDS
        changed = {name for name, state in states.items() if self._states.get(name) != state}
        told = [
            job
            for job in self._jobs
            if states[job.name].kind != "waiting"
            and (job.name in changed or (late and states[job.name].kind in _AT_WORK))
        ]
        if told:
            self._printed = time.monotonic()
            _look_up(told, states, self._details)
        for job in told:
            line = f"{_finished(states)}/{len(states)} runs, {job.name}: {self._details[job.name]}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._states = dict(states)


def _finished(states: "Mapping[str, State]") -> int:
    return sum(state.kind in ("done", "diverged") for state in states.values())


def _look_up(jobs: "Sequence[Job]", states: "Mapping[str, State]", details: dict[str, str]) -> None:
    """Bring ``details`` up to date; what is done is read once."""
    from saq_qat.analysis.study.jobs import accuracy_of, progress_of

    for job in jobs:
        kind = states[job.name].kind
        if kind == "done":
            known = details.get(job.name, "")
            details[job.name] = known if known.endswith(" %") else f"{accuracy_of(job):.2f} %"
        elif kind in ("train", "resume"):
            details[job.name] = f"{_WORDS[kind]} {progress_of(job)}".rstrip()
        else:
            details[job.name] = _WORDS[kind]
