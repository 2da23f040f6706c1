"""Requests that arrive together run together: a bounded queue, and one thread that forms batches."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.errors import ClosedError, InputError
from saq_qat_runtime.serve.refusals import DeadlineError, OverloadError

__all__ = ["Answer", "BatchObserver", "Batcher", "Floats"]

Floats: TypeAlias = NDArray[np.float32]

_log = logging.getLogger("saq_qat_runtime.serve")


@dataclass(frozen=True)
class Answer:
    """Logits (N, labels) of one request; seconds it waited, and of computing its batch; images in that."""

    logits: Floats
    queue_seconds: float
    compute_seconds: float
    batch_size: int


class BatchObserver(Protocol):
    """Who is told of every batch, from the batcher's thread."""

    def batch_done(self, images: int, queue_seconds: Sequence[float], compute_seconds: float) -> None:
        """images: of the batch; queue_seconds: of each of its requests."""


@dataclass(frozen=True)
class _Waiting:
    images: Floats
    arrived: float
    deadline: float
    future: "Future[Answer]"


class Batcher:
    """Queues requests of 1 to `max_batch` images and answers each with its own logits.

    run: logits of images; called by one thread, with at most `max_batch` images. join: whether images of
    several requests may be in one call of it. delay: seconds for which the oldest request waits for others.
    limit: requests that may wait.
    A request that cannot be computed fails alone: if a batch raises InputError, each request runs by itself.
    """

    def __init__(
        self,
        run: Callable[[Floats], Floats],
        *,
        max_batch: int,
        join: bool,
        delay: float,
        limit: int,
        observer: BatchObserver,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._join = join
        self._delay = delay if join else 0.0
        self._limit = limit
        self._observer = observer
        self._queue: deque[_Waiting] = deque()
        self._changed = Condition()
        self._closed = False
        self._seconds_an_image = 0.0
        self._thread = Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether batches are still formed."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def submit(self, images: Floats, deadline: float) -> "Future[Answer]":
        """Queue images (N, channels, height, width) that were checked; `deadline` by time.monotonic().

        The future raises DeadlineError, or what `run` raises; cancel it and the request is not computed.
        Raises InputError for a batch too large, OverloadError for a full queue, ClosedError after `close`.
        """
        if len(images) > self._max_batch:
            fix = "Split the request."
            raise InputError(f"A request may hold {self._max_batch} images, got {len(images)}. {fix}")
        waiting = _Waiting(images, time.monotonic(), deadline, Future())
        with self._changed:
            if self._closed:
                raise ClosedError("This model is being closed. Send the request again.")
            if len(self._queue) >= self._limit:  # clients that left have left their places
                self._queue = deque(each for each in self._queue if not each.future.cancelled())
            if len(self._queue) >= self._limit:
                raise OverloadError(f"{self._limit} requests wait already. Try later.", self._retry_after())
            self._queue.append(waiting)
            self._changed.notify()
        return waiting.future

    def close(self) -> None:
        """Refuse new requests, answer those that wait, and return when all are answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _retry_after(self) -> int:
        images = sum(len(waiting.images) for waiting in self._queue)
        return max(1, math.ceil(images * self._seconds_an_image))

    def _work(self) -> None:
        while batch := self._next():
            wanted = [waiting for waiting in batch if _still_wanted(waiting)]
            if wanted:
                self._answer(wanted)

    def _next(self) -> list[_Waiting]:
        """The oldest requests that fit into one batch, once it is full or time; none after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._queue:
                rest = self._queue[0].arrived + self._delay - time.monotonic()
                self._changed.wait_for(lambda: self._closed or self._full(), max(0.0, rest))
            taken: list[_Waiting] = []
            images = 0
            while self._queue and images + len(self._queue[0].images) <= self._max_batch:
                taken.append(self._queue.popleft())
                images += len(taken[-1].images)
                if not self._join:
                    break
            return taken

    def _full(self) -> bool:
        return sum(len(waiting.images) for waiting in self._queue) >= self._max_batch

    def _answer(self, batch: list[_Waiting]) -> None:
        start = time.monotonic()
        try:
            logits = self._run(_joined(batch))
        except InputError as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for waiting in batch:
                self._answer([waiting])
            return
        except Exception as error:  # whatever the engine raises is the answer of each who waits
            images = sum(len(waiting.images) for waiting in batch)
            _log.error("a batch of %d images failed: %s: %s", images, type(error).__name__, error)
            for waiting in batch:
                waiting.future.set_exception(error)
            return
        self._hand_out(batch, logits, start)

    def _hand_out(self, batch: list[_Waiting], logits: Floats, start: float) -> None:
        seconds = time.monotonic() - start
        self._seconds_an_image = seconds / len(logits)
        queued = [start - waiting.arrived for waiting in batch]
        try:
            self._observer.batch_done(len(logits), queued, seconds)
        except Exception:  # whatever becomes of a metric, the answers are there
            _log.exception("a batch could not be counted")
        first = 0
        for waiting, queue_seconds in zip(batch, queued, strict=True):
            own = logits[first : first + len(waiting.images)]
            first += len(waiting.images)
            waiting.future.set_result(Answer(own, queue_seconds, seconds, len(logits)))


def _joined(batch: list[_Waiting]) -> Floats:
    return batch[0].images if len(batch) == 1 else np.concatenate([waiting.images for waiting in batch])


def _still_wanted(waiting: _Waiting) -> bool:
    if not waiting.future.set_running_or_notify_cancel():
        return False
    late = time.monotonic() - waiting.deadline
    if late < 0:
        return True
    waited = waiting.deadline - waiting.arrived
    waiting.future.set_exception(
        DeadlineError(f"The request waited {waited:.3f} s, as long as it may. Send fewer, or allow it more.")
    )
    return False
