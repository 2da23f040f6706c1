"""Shadow mode: a share of the requests runs on a second engine or bundle too, and nobody waits for it."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Protocol

import numpy as np

from saq_qat_runtime.errors import InputError
from saq_qat_runtime.serve.batcher import Answer, Floats
from saq_qat_runtime.serve.flips import Flips
from saq_qat_runtime.serve.settings import ServeSettings, ShadowSettings
from saq_qat_runtime.session import Session

__all__ = ["Shadow", "ShadowObserver"]

_WAITING = 64
_LOOK_SECONDS = 0.1

_log = logging.getLogger("saq_qat_runtime.serve")


class ShadowObserver(Protocol):
    """Who is told of every comparison, from the shadow's thread."""

    def shadow_compared(
        self, images: int, flips: int, difference: float, primary_seconds: float, shadow_seconds: float
    ) -> None:
        """flips: images whose best label differs; difference: the largest of a logit; seconds to compute."""

    def shadow_dropped(self) -> None:
        """A request was chosen, but the shadow was busy."""

    def shadow_failed(self) -> None:
        """The second engine failed on a request; the first one answered it all the same."""

    def shadow_unkept(self) -> None:
        """What a request flipped could not be written: the disk is full, or the folder is gone."""


class Shadow:
    """Compares answers with those of a second session, in a thread of its own.

    Every 1/share-th request is taken, and counted as dropped where 64 wait already. Inputs whose best label
    differs are kept; see `Flips`. Whatever fails here is counted and logged, and the first session goes on.
    """

    def __init__(self, session: Session, settings: ShadowSettings, observer: ShadowObserver) -> None:
        self._session = session
        self._settings = settings
        self._flips = None if settings.keep_folder is None else Flips(settings.keep_folder, settings.keep)
        self._observer = observer
        self._credit = 0.0
        self._queue: Queue[tuple[Floats, Answer]] = Queue(_WAITING)
        self._closing = Event()
        self._thread = Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls, folder: Path, primary: Session, settings: ServeSettings, observer: ShadowObserver
    ) -> "Shadow":
        """The shadow that the settings ask for, of the bundle in `folder` unless they name another.

        Raises SessionError if it cannot be loaded, InputError if its inputs or labels are others.
        """
        asked = settings.shadow
        if asked is None:
            raise InputError("Shadow mode was not asked for.")
        session = Session.load(
            asked.bundle or folder,
            asked.backend or settings.backend,
            threads=settings.threads,
            allow_failed_gate=settings.allow_failed_gate,
        )
        try:
            _check_alike(primary, session)
            session.self_test()
            return cls(session, asked, observer)
        except BaseException:  # passed on; an engine that nobody will use is released first
            session.close()
            raise

    def watch(self, images: Floats, future: "Future[Answer]") -> None:
        """Compare the answer that `future` will give, if this request is one of the share."""
        self._credit += self._settings.share
        if self._credit < 1:
            return
        self._credit -= 1
        future.add_done_callback(self._queue_for(images))

    def close(self) -> None:
        """Drop what waits, and release the second engine."""
        self._closing.set()
        self._thread.join()
        self._session.close()

    def _queue_for(self, images: Floats) -> "Callable[[Future[Answer]], None]":
        def done(future: "Future[Answer]") -> None:
            if future.cancelled() or future.exception() is not None:
                return
            try:
                self._queue.put_nowait((images, future.result()))
            except Full:
                self._observer.shadow_dropped()

        return done

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                images, answer = self._queue.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue
            try:
                self._compare(images, answer)
            except Exception as error:  # whatever it is, the thread goes on, and so do the answers
                _log.error("the shadow failed on a request: %s: %s", type(error).__name__, error)
                self._observer.shadow_failed()

    def _compare(self, images: Floats, answer: Answer) -> None:
        start = time.perf_counter()
        logits = self._session.run(images)
        seconds = time.perf_counter() - start
        flipped = logits.argmax(axis=1) != answer.logits.argmax(axis=1)
        difference = float(np.abs(logits.astype(np.float64) - answer.logits).max())
        share = answer.compute_seconds * len(images) / answer.batch_size
        self._observer.shadow_compared(len(images), int(flipped.sum()), difference, share, seconds)
        if self._flips is None or not flipped.any():
            return
        if not self._flips.keep(images[flipped], answer.logits[flipped], logits[flipped]):
            self._observer.shadow_unkept()


def _check_alike(primary: Session, shadow: Session) -> None:
    """Raise InputError unless what goes into one session, and comes out of it, fits the other."""
    first, second = primary.info.manifest, shadow.info.manifest
    for what in ("inputs", "preprocessing", "labels"):
        if getattr(first, what) != getattr(second, what):
            rule = f"A shadow must have the {what} of the model it follows; {second.name!r} has others"
            raise InputError(f"{rule}. Serve it on its own.")
