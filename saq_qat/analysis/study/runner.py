"""Runs the jobs of a study, some at a time, each step in a process of its own."""

import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Literal

from saq_qat.analysis.study.jobs import DIVERGED_FILE, Job, Step, find_run, mark_diverged, next_step
from saq_qat.errors import DivergedError, SaqError
from saq_qat.train.stop import Stop

__all__ = ["Failure", "OnStates", "State", "StudyStoppedError", "run_jobs"]

_TICK_SECONDS = 0.2
_LINES_SHOWN = 5
_NOBODY_ELSE_CAN = (2, 3, 4)
"""Exit codes of a wrong recipe, missing data and a missing package: the next run would meet the same."""


@dataclass(frozen=True)
class State:
    """Where a job stands.

    ``held``: a process that an earlier, killed study left behind is still at it, and is waited for.
    """

    kind: Literal["waiting", "held", "train", "resume", "measure", "done", "diverged", "failed"]


OnStates = Callable[[Mapping[str, State]], None]
"""Told the states of all jobs by name, several times a second."""


@dataclass(frozen=True)
class Failure:
    """A job that could not be done: the exit code of its process, and the end of what that said."""

    job: Job
    code: int
    said: str

    def told(self, logs: Path) -> str:
        """The run, how its process ended, where all that it said stands, and the end of it."""
        killed = f"killed by signal {-self.code}, as where memory runs out"
        ended = f"exit code {self.code}" if self.code >= 0 else killed
        return f"{self.job.name} ({ended}, {logs / self.job.name}.log):\n{self.said}"


class StudyStoppedError(SaqError):
    """The study was asked to stop, and its runs have saved; exit code 128 + signal, as in shells."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@dataclass
class _Child:
    """A process at work on a step of a job, and its log, which is locked for as long as the process lives."""

    job: Job
    step: Step
    process: "subprocess.Popen[bytes]"
    log: FileIO
    begun: int


@dataclass
class _Board:
    """What is known of all jobs."""

    states: dict[str, State]
    waiting: list[Job]
    children: list[_Child] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    hopeless: bool = False


def run_jobs(
    jobs: Sequence[Job],
    processes: int,
    command: Sequence[str],
    logs: Path,
    stop: Stop,
    on_states: OnStates,
) -> list[Failure]:
    """Do all that is left to do, ``processes`` jobs at a time; gives those that failed.

    A run that diverges is a result, and marked. After a failure the other jobs go on, but where it speaks of
    the recipe, the data or the environment, no new one is begun.

    Args:
        command: what the arguments of ``saq-qat`` stand behind; a process that it starts stops, and saves,
            when its standard input is closed or a signal comes.
        logs: folder that holds what each job's processes say.

    Raises:
        StudyStoppedError: ``stop`` noted a signal, which all processes were sent and have followed.
    """
    logs.mkdir(parents=True, exist_ok=True)
    board = _Board({job.name: State("waiting") for job in jobs}, list(jobs))
    told = 0
    try:
        while board.children or board.waiting:
            if stop.number and not told:
                told = stop.number
                board.waiting.clear()
                for child in board.children:
                    child.process.send_signal(told)
            _reap(board, command, stopping=bool(told))
            if board.hopeless:
                board.waiting.clear()
            _begin(board, processes, command, logs)
            on_states(board.states)
            time.sleep(_TICK_SECONDS if board.children or board.waiting else 0.0)
    finally:
        for child in board.children:
            child.process.terminate()
    if told:
        raise StudyStoppedError(_stopped(board.failures, logs), told)
    return board.failures


def _stopped(failures: Sequence[Failure], logs: Path) -> str:
    """What is told of a study that a signal stopped; a run that had failed before has not saved."""
    if not failures:
        return "Stopped by a signal; every run has saved. The same command goes on from there."
    told = "\n".join(failure.told(logs) for failure in failures)
    return (
        f"{told}\nStopped by a signal, after {len(failures)} run(s) had failed; every other run has saved. "
        "The same command goes on from there."
    )


def _begin(board: _Board, processes: int, command: Sequence[str], logs: Path) -> None:
    """Take up waiting jobs until ``processes`` are at work."""
    for job in list(board.waiting):
        if len(board.children) >= processes:
            return
        log = (logs / f"{job.name}.log").open("ab", buffering=0)
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.close()
            board.states[job.name] = State("held")
            continue
        board.waiting.remove(job)
        _take_up(board, job, None, command, log)


def _take_up(board: _Board, job: Job, before: Step | None, command: Sequence[str], log: FileIO) -> None:
    """Start the next step of a job, or close its log if there is none."""
    step = next_step(job)
    if step is None:
        log.close()
        board.states[job.name] = State("diverged" if _has_diverged(job) else "done")
        return
    if before is not None and step.kind in (before.kind, "train"):
        log.close()
        said = f"{' '.join(before.arguments)}: ended well and left nothing behind"
        _fail(board, Failure(job, 1, said))
        return
    log.write(f"--- saq-qat {' '.join(step.arguments)}\n".encode())
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "MKL_NUM_THREADS": str(job.threads)}
    process = subprocess.Popen(
        [*command, *step.arguments],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )
    board.states[job.name] = State(step.kind)
    board.children.append(_Child(job, step, process, log, log.tell()))


def _has_diverged(job: Job) -> bool:
    run = find_run(job)
    return run is not None and (run / DIVERGED_FILE).is_file()


def _reap(board: _Board, command: Sequence[str], *, stopping: bool) -> None:
    """See which processes have ended, and go on with their jobs."""
    for child in [child for child in board.children if child.process.poll() is not None]:
        board.children.remove(child)
        _close_input(child)
        code = child.process.returncode
        if code == 0 and not stopping:
            _take_up(board, child.job, child.step, command, child.log)
            continue
        said = _end_of(child.log, child.begun)
        child.log.close()
        if code == 0 or stopping:
            board.states[child.job.name] = State("waiting")
        elif code == DivergedError.exit_code and child.step.kind != "measure":
            _note_divergence(board, child.job, said)
        else:
            _fail(board, Failure(child.job, code, said))


def _close_input(child: _Child) -> None:
    if child.process.stdin is not None:
        child.process.stdin.close()


def _note_divergence(board: _Board, job: Job, said: str) -> None:
    run = find_run(job)
    if run is not None:
        mark_diverged(run, said)
    board.states[job.name] = State("diverged")


def _fail(board: _Board, failure: Failure) -> None:
    board.states[failure.job.name] = State("failed")
    board.failures.append(failure)
    board.hopeless = board.hopeless or failure.code in _NOBODY_ELSE_CAN


def _end_of(log: FileIO, begun: int) -> str:
    """The last lines of what a process said since byte ``begun``."""
    with Path(str(log.name)).open("rb") as file:
        file.seek(begun)
        text = file.read().decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-_LINES_SHOWN:])
