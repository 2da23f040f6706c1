"""What all routes of one server share."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from starlette.requests import Request

from saq_qat_runtime.serve.batcher import Answer
from saq_qat_runtime.serve.catalogue import Catalogue, Changes
from saq_qat_runtime.serve.model import load_model
from saq_qat_runtime.serve.refusals import DeadlineError, Refusal
from saq_qat_runtime.serve.settings import ServeSettings
from saq_qat_runtime.serve.web.body import Admission, Held, read_body
from saq_qat_runtime.serve.web.decoders import Decoders
from saq_qat_runtime.serve.web.metrics import ServeMetrics

__all__ = ["Serving"]

_DECODERS = 2  # each may hold a picture of `pixels`, several times over
_CLIENT_LEFT = 499

P = ParamSpec("P")
R = TypeVar("R")


class Serving:
    """Settings, models, metrics and bounds of one server.

    draining: the server was told to stop: it is no longer ready, and still answers.
    """

    def __init__(self, root: Path, settings: ServeSettings) -> None:
        self.settings = settings
        self.metrics = ServeMetrics()
        self.catalogue = Catalogue(
            root,
            lambda place: load_model(place, settings, self.metrics.of_model(place), lambda: self.draining),
        )
        self.admission = Admission(settings.bounds)
        self.draining = False
        self._workers = Decoders(_DECODERS)

    def reload(self) -> Changes:
        """Load what is new in the folder; see `Catalogue.reload`. Blocks: not for the event loop's thread."""
        try:
            changes = self.catalogue.reload()
        except Exception:  # passed on; counted, whatever it is
            self.metrics.reloads.labels("failed").inc()
            raise
        self.metrics.reloaded(self.catalogue, changes)
        return changes

    def close(self) -> None:
        """Close the models, once their requests are answered; nobody waits for what is still decoded."""
        self.catalogue.close()
        self._workers.close()

    def deadline(self, timeout_microseconds: int | None = None) -> float:
        """Until when a request that arrives now must be answered, in seconds of time.monotonic().

        The client may ask for less than the server allows.
        """
        seconds = self.settings.bounds.deadline
        if timeout_microseconds is not None:
            seconds = min(seconds, timeout_microseconds / 1e6)
        return monotonic() + seconds

    async def in_thread(
        self, deadline: float, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of a call that would hold up the event loop; raises DeadlineError if it is late."""
        call = self._workers.submit(function, *args, **kwargs)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(call), max(0.0, deadline - monotonic()))
        except TimeoutError:
            raise DeadlineError("The request was not decoded in time. Send less, or allow it more.") from None

    async def body(self, request: Request, held: Held, deadline: float) -> bytes:
        """The body of a request; see `read_body`."""
        return await read_body(
            request, held, self.settings.bounds, lambda unpack: self.in_thread(deadline, unpack)
        )

    async def answer(self, request: Request, future: "Future[Answer]", deadline: float) -> Answer:
        """What `future` gives. The request is cancelled when its time is over, and when the client leaves.

        request: its body was read to the end. Raises what the future raises, DeadlineError, or Refusal.
        """
        answer = asyncio.wrap_future(future)
        gone: asyncio.Future[None] = asyncio.ensure_future(_left(request))
        seconds = max(0.0, deadline - monotonic())
        try:
            either: tuple[asyncio.Future[Any], ...] = (answer, gone)
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if gone.done():
                raise Refusal(_CLIENT_LEFT, "The client left.")
            raise DeadlineError(
                f"No answer within {self.settings.bounds.deadline:g} s or the time it allows."
            )
        finally:
            answer.cancel()
            gone.cancel()


async def _left(request: Request) -> None:
    """Return when the client leaves: after the body, nothing else is received."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
