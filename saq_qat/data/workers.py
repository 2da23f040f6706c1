"""Batches prepared in other processes, in order; one that dies is named and replaced once."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from saq_qat.data.noting import Notes
from saq_qat.errors import DataError
from saq_qat.patience import TIMEOUT_VARIABLE, patience_seconds

__all__ = ["prepared_batches"]

Batch = tuple[Tensor, Tensor]

_SECONDS_TO_DIE = 2.0
"""Within these, a process whose connection broke can be told from one that lives."""
_SECONDS_TO_LOOK = 5.0
"""As often the loader's processes are looked at while a batch is waited for."""
_LATE = "DataLoader timed out"


@dataclass(frozen=True)
class _Failure:
    """Why a batch is missing; DataLoader would bury the message in the worker's traceback."""

    message: str


@dataclass(frozen=True)
class _Prepare(Dataset[Batch | _Failure]):
    prepare: Callable[[int], Batch]
    notes: Notes

    def __getitem__(self, index: int) -> Batch | _Failure:
        self.notes.begin(os.getpid(), index)
        try:
            return self.prepare(index)
        except DataError as error:
            return _Failure(str(error))


@dataclass(frozen=True)
class _Death:
    """A loader process ended; ``batch`` is the one it was at, or None if that is unknown."""

    message: str
    batch: int | None


def prepared_batches(
    prepare: Callable[[int], Batch], indices: range, workers: int, *, pinned: bool = False
) -> Iterator[Batch]:
    """prepare(i) for each of `indices`, in order, computed by `workers` processes (0: by this one).

    `pinned`: workers' batches come in memory from which a GPU copies while it computes.
    `prepare` must be picklable and pure. If a worker dies, which is noticed within seconds, new ones prepare
    the same batches once more, with a warning. Raises DataError if `prepare` does, if one dies again before
    the batch is there that the first was at, or if no batch comes for as long as `patience_seconds` says.
    """
    if workers == 0:
        yield from map(prepare, indices)
        return
    done, tried = 0, -1
    while done < len(indices):
        died = None
        for batch in _loaded(prepare, indices[done:], workers, pinned):
            if isinstance(batch, _Death):
                died = batch
                break
            done += 1
            yield batch
        if died is None:
            return
        if indices[done] <= tried:
            raise DataError(
                f"{died.message} It was the second time at these images. It was killed, for lack of "
                "memory or of shared memory (/dev/shm), or its image library crashed. Lower data.workers; 0 "
                "shows the cause."
            )
        tried = indices[done] if died.batch is None else max(died.batch, indices[done])
        warnings.warn(f"{died.message} The same images are prepared once more.", stacklevel=2)


def _loaded(
    prepare: Callable[[int], Batch], indices: range, workers: int, pinned: bool
) -> Iterator[Batch | _Death]:
    """The batches; a death is the last of them."""
    notes = Notes(workers)
    loader = DataLoader(
        _Prepare(prepare, notes),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        pin_memory=pinned,
        collate_fn=_unchanged,
        timeout=_SECONDS_TO_LOOK,
        # Its own generator: the loader would otherwise draw from the global one, and only with workers.
        generator=torch.Generator(),
    )
    others = set(multiprocessing.active_children())
    batches = _start(loader)
    processes = [process for process in multiprocessing.active_children() if process not in others]
    try:
        while (batch := _next(batches, processes, notes)) is not None:
            if isinstance(batch, _Failure):
                raise DataError(batch.message)
            yield batch
    finally:
        # Ends the workers now: the traceback of an error would keep them for as long as it lives.
        del batches


def _unchanged(batch: Any) -> Any:
    return batch


def _next(
    batches: Iterator[Batch | _Failure], processes: list[BaseProcess], notes: Notes
) -> Batch | _Failure | _Death | None:
    """A death is a value: the traceback of an error would hold the loader, and with it what is left of it."""
    patience = patience_seconds()
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            return next(batches, None)
        # Which error the death of a worker becomes depends on where it stood: in the queue, in shared memory.
        except (RuntimeError, OSError, EOFError) as error:
            late = str(error).startswith(_LATE)
            died = _dead(processes, 0.0 if late else _SECONDS_TO_DIE)
            if died is None and not late:
                raise
        if died is not None:
            return _death(died, processes, notes)
    message = _hanging(processes, notes, patience)
    for process in processes:
        process.kill()  # one that is stopped hears nothing else, and would be waited for
    return _Failure(message)


def _hanging(processes: list[BaseProcess], notes: Notes, patience: int) -> str:
    at = {process.pid: notes.of(process.pid or 0) for process in processes}
    listed = "; ".join(
        f"pid {pid} is {'before its first batch' if place is None else _place(place)}"
        for pid, place in at.items()
    )
    return (
        f"No loader process gave a batch within {patience} s ({TIMEOUT_VARIABLE} sets how long to wait): "
        f"{listed}. They hang, as on a disk that does not answer, or need longer; data.workers: 0 shows the "
        "cause."
    )


def _place(at: tuple[int, str]) -> str:
    image = f"image '{at[1]}'" if at[1] else "its images, which lie decoded in memory"
    return f"at batch {at[0] + 1} of the epoch, {image}"


def _dead(processes: list[BaseProcess], seconds: float) -> BaseProcess | None:
    """The process that ended otherwise than by its own will, if one does within ``seconds``."""
    multiprocessing.connection.wait([process.sentinel for process in processes], seconds)
    return next((process for process in processes if process.exitcode), None)


def _death(died: BaseProcess, processes: list[BaseProcess], notes: Notes) -> _Death:
    code, process = died.exitcode or 0, died.pid or 0
    how = f"by signal {_signal_name(-code)}" if code < 0 else f"with exit code {code}"
    at = notes.of(process)
    place = "before its first batch" if at is None else _place(at)
    number = sorted(each.pid or 0 for each in processes).index(process) + 1
    return _Death(
        f"Loader process {number} of {len(processes)} (pid {process}) was ended {how}, {place}.",
        None if at is None else at[0],
    )


def _signal_name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def _start(loader: DataLoader[Batch | _Failure]) -> Iterator[Batch | _Failure]:
    """Start the workers, and keep torch from raising a dead worker's error wherever this process is.

    torch installs a SIGCHLD handler for that; without it the loader notices at the next batch, where it can
    be caught.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, handler)
