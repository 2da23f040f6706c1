"""One version of one model while it is served: session, batcher, shadow, and who is using it."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import Protocol

from saq_qat_runtime.bundle.manifest import Manifest, bundle_sha256
from saq_qat_runtime.checks import check_batch
from saq_qat_runtime.errors import ClosedError, InputError
from saq_qat_runtime.promises import read_golden
from saq_qat_runtime.serve.batch_rule import BatchRule, measure_batch_rule, one_by_one, probe_images
from saq_qat_runtime.serve.batcher import Answer, Batcher, BatchObserver, Floats
from saq_qat_runtime.serve.settings import ServeSettings
from saq_qat_runtime.serve.shadow import Shadow, ShadowObserver
from saq_qat_runtime.session import Session

__all__ = ["ModelObserver", "ModelPlace", "ServedModel", "load_model"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class ModelPlace:
    """Where a version of a model lies; sha256: of its manifest, which holds those of the other files."""

    name: str
    version: str
    folder: Path
    sha256: str

    @classmethod
    def of_bundle(cls, folder: Path) -> "ModelPlace":
        """A bundle by itself: version 1 of the model that its manifest names."""
        sha256 = bundle_sha256(folder)
        name = _UNSAFE.sub("-", Manifest.load(folder, verify_files=False).name).strip("-.") or "model"
        return cls(name, "1", folder, sha256)


class ModelObserver(BatchObserver, ShadowObserver, Protocol):
    """Who is told of the batches and comparisons of one model."""


class ServedModel:
    """A loaded bundle that answers requests; made by `load_model`."""

    def __init__(
        self, place: ModelPlace, session: Session, rule: BatchRule, batcher: Batcher, shadow: Shadow | None
    ) -> None:
        self.place = place
        self.rule = rule
        self._session = session
        self._batcher = batcher
        self._shadow = shadow
        self._users = 0
        self._changed = Condition()
        self._retired = False
        self.products = session.integer_count().label

    @property
    def session(self) -> Session:
        """The session that computes; `info` of it says what runs."""
        return self._session

    @property
    def healthy(self) -> bool:
        """Whether the engine still computes, and is still given batches."""
        return self._session.healthy and self._batcher.alive

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._batcher.waiting

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the model from being closed; raises ClosedError once it is retired."""
        with self._changed:
            if self._retired:
                raise ClosedError("This model was replaced. Send the request again.")
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def submit(self, images: Floats, deadline: float) -> "Future[Answer]":
        """Check and queue images (N, channels, height, width), N from 1; see `Batcher.submit`."""
        checked = check_batch(images, self._session.info.manifest.inputs[0], max_batch=None, finite=True)
        if len(checked) == 0:
            raise InputError("A request must hold at least 1 image, got 0.")
        future = self._batcher.submit(checked, deadline)
        if self._shadow is not None:
            self._shadow.watch(checked, future)
        return future

    def retire(self) -> None:
        """Wait until nobody uses it, answer what is queued, and close it; may be called twice."""
        with self._changed:
            self._retired = True
            self._changed.wait_for(lambda: self._users == 0)
        self._batcher.close()
        if self._shadow is not None:
            self._shadow.close()
        self._session.close()


def load_model(
    place: ModelPlace,
    settings: ServeSettings,
    observer: ModelObserver,
    stopping: Callable[[], bool] = lambda: False,
) -> ServedModel:
    """Load the bundle, compare its golden logits, and run every batch size that requests can form.

    Raises SessionError if anything of that fails, ClosedError once `stopping`; nothing stays loaded then.
    """
    session = Session.load(
        place.folder, settings.backend, threads=settings.threads, allow_failed_gate=settings.allow_failed_gate
    )
    shadow = None
    try:
        session.self_test()
        golden, _ = read_golden(place.folder, session.info.manifest)
        probes = probe_images(golden, settings.max_batch)
        rule = measure_batch_rule(session.run, probes, settings.max_batch, stopping)
        if settings.shadow is not None:
            shadow = Shadow.load(place.folder, session, settings, observer)
    except BaseException:  # passed on; an engine that nobody will use is released first
        session.close()
        raise
    batcher = Batcher(
        session.run if rule.together else one_by_one(session.run),
        max_batch=settings.max_batch,
        join=rule.together,
        delay=settings.batch_delay,
        limit=settings.bounds.requests,
        observer=observer,
    )
    return ServedModel(place, session, rule, batcher, shadow)
