"""Streams of one engine, lent to the threads that call it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Condition

from saq_qat_runtime.errors import ClosedError, CudaError
from saq_qat_runtime.tensorrt.stream import EngineStream

__all__ = ["StreamPool"]


class StreamPool:
    """Makes streams when they are needed, `limit` at most; further threads wait for one that is free.

    The stream that was given back last is lent first: its graphs are captured, its memory is warm. Where GPU
    memory is too short for another stream, those that exist have to do.
    """

    def __init__(self, create: Callable[[], EngineStream], limit: int) -> None:
        self._create = create
        self._limit = limit
        self._process = os.getpid()
        self._changed = Condition()
        self._streams: list[EngineStream] = []
        self._idle: list[EngineStream] = []

    @property
    def streams(self) -> tuple[EngineStream, ...]:
        """Those made so far."""
        return tuple(self._streams)

    @contextmanager
    def lend(self) -> Iterator[EngineStream]:
        """A stream for the calling thread alone; raises what making one raises."""
        stream = self._take()
        try:
            yield stream
        finally:
            with self._changed:
                self._idle.append(stream)
                self._changed.notify()

    def close(self) -> None:
        """Release every stream; none may be lent. Does nothing in a forked child, which has no GPU."""
        if os.getpid() != self._process:
            return
        with self._changed:
            streams, self._streams, self._idle = self._streams, [], []
            self._create = _refuse  # what made streams holds the engine
        for stream in streams:
            # After a sticky error nothing can be given back any more; the end of the process does it.
            with suppress(CudaError):
                stream.close()

    def _take(self) -> EngineStream:
        with self._changed:
            while not self._idle:
                if len(self._streams) < self._limit and self._grow():
                    break
                self._changed.wait_for(lambda: self._idle)
            return self._idle.pop()

    def _grow(self) -> bool:
        """Make one more stream, if memory allows."""
        try:
            stream = self._create()
        except CudaError as error:
            if not (error.out_of_memory and self._streams):
                raise
            self._limit = len(self._streams)
            return False
        self._streams.append(stream)
        self._idle.append(stream)
        return True


def _refuse() -> EngineStream:
    raise ClosedError("This engine is closed. Load it again.")
