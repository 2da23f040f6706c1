"""Threads for what would hold up the event loop: unpacking, reading JSON, decoding pictures."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from typing import ParamSpec, TypeVar

__all__ = ["Decoders"]

P = ParamSpec("P")
R = TypeVar("R")


class Decoders:
    """`count` threads that run calls one after the other, and that no exit of the process waits for.

    A thread of concurrent.futures is joined when the process ends, however long its call still takes: one
    picture that is slow to decode would outlast the bound of a stop.
    """

    def __init__(self, count: int) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [Thread(target=self._work, name=f"decode_{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """What a thread gives once it has come to this call; cancel it before that, and it is not made."""
        future: Future[R] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # whatever it is, it belongs to whoever waits for the call
                future.set_exception(error)

        self._calls.put(call)
        return future

    def close(self) -> None:
        """End each thread after the call that it makes, without waiting for it; what waits is not made."""
        try:
            while True:
                self._calls.get_nowait()
        except Empty:
            for _ in self._threads:
                self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # it holds a picture, and the next one may be long in coming
