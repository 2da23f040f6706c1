"""Batches prepared in other processes, in order; a worker that dies becomes an error, never a hang."""

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from saq_qat.errors import DataError

__all__ = ["prepared_batches"]

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Failure:
    """Why a batch is missing; DataLoader would bury the message in the worker's traceback."""

    message: str


@dataclass(frozen=True)
class _Prepare(Dataset[Batch | _Failure]):
    prepare: Callable[[int], Batch]

    def __getitem__(self, index: int) -> Batch | _Failure:
        try:
            return self.prepare(index)
        except DataError as error:
            return _Failure(str(error))


def _unchanged(batch: Any) -> Any:
    return batch


def prepared_batches(
    prepare: Callable[[int], Batch], indices: range, workers: int, *, pinned: bool = False
) -> Iterator[Batch]:
    """prepare(i) for each of `indices`, in order, computed by `workers` processes (0: by this one).

    `pinned`: workers' batches come in memory from which a GPU copies while it computes.
    `prepare` must be picklable and pure. Raises DataError if it does, or if a worker dies (noticed within
    seconds).
    """
    if workers == 0:
        yield from map(prepare, indices)
        return
    loader = DataLoader(
        _Prepare(prepare),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        pin_memory=pinned,
        collate_fn=_unchanged,
        # Its own generator: the loader would otherwise draw from the global one, and only with workers.
        generator=torch.Generator(),
    )
    batches = _start(loader)
    try:
        while (batch := _next(batches)) is not None:
            if isinstance(batch, _Failure):
                raise DataError(batch.message)
            yield batch
    finally:
        # Ends the workers now: the traceback of an error would keep them for as long as it lives.
        del batches


def _next(batches: Iterator[Batch | _Failure]) -> Batch | _Failure | None:
    try:
        return next(batches, None)
    except RuntimeError as error:
        # The loader's message for dead processes; errors inside a living worker start with "Caught".
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        return _Failure(
            f"A loader process died ({error}). It was killed, for lack of memory or of shared memory "
            "(/dev/shm), or its image library crashed. Lower data.workers; 0 shows the cause."
        )


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
