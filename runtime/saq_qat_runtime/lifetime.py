"""Who may use an engine: many threads at once; nobody after it was closed, broke down, or crossed a fork.

Ctrl-C, the handler of a signal and a destructor may run between any two steps of Python code in the middle of
a call, and may close the session there. So a call is entered and left by single steps that nothing comes
between (an item stored in or deleted from a dictionary), every call holds a lock of its own that is written
in C, and a close from inside a call waits for none.
"""

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

from saq_qat_runtime.errors import ClosedError, RuntimeFault

__all__ = ["Lifetime"]

_LONGEST_EXIT = 10.0
"""Seconds that a process that ends waits for calls of its daemon threads."""

Result = TypeVar("Result")
_OPEN: "WeakSet[Lifetime]" = WeakSet()


class Lifetime:
    """Knows the calls in flight, so that closing waits for them, and remembers the first fault.

    release: frees the engine, once: when it is closed and the last call has ended.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self._process = os.getpid()
        self._release = [release]
        self._calls: dict[object, tuple[int, threading.Lock]] = {}
        self._closed = False
        self._process_ends = False
        self._fault: str | None = None
        _OPEN.add(self)

    @property
    def healthy(self) -> bool:
        """Whether calls are still accepted."""
        return not self._closed and self._fault is None

    def call(self, work: Callable[[], Result]) -> Result:
        """What `work` gives; the engine stays while it runs. A RuntimeFault is remembered and raised again by
        every later call.

        Raises ClosedError after `close` and in a forked child, RuntimeFault after a fault. Where the process
        ends, a daemon thread does not come back.
        """
        try:
            return self._call(work)
        except ClosedError:
            if self._process_ends and threading.current_thread() is not threading.main_thread():
                # Python stops such threads wherever they are; one that prints an error then aborts it.
                threading.Event().wait()
            raise

    def _call(self, work: Callable[[], Result]) -> Result:
        self._check_process()
        call, thread, ended = object(), threading.get_ident(), threading.Lock()
        ended.acquire()
        try:
            self._calls[call] = (thread, ended)
            self._check_open()
            return work()
        except RuntimeFault as error:
            self._fault = str(error)
            raise
        finally:
            del self._calls[call]
            ended.release()
            if self._closed and not self._calls:
                self._release_once()

    def close(self) -> None:
        """Refuse new calls, wait for those in flight, and release the engine; may be called again.

        Inside a call of the same thread nothing is waited for: the last call in flight releases the engine.
        In a forked child nothing happens.
        """
        if os.getpid() != self._process:
            return
        self._closed = True
        if self._is_inside():
            return
        self._wait()
        self._release_once()

    def close_at_exit(self, until: float) -> None:
        """As `close` in the thread that ends the process: waits until `until` (`time.monotonic`) at most, and
        leaves the engine to the end of the process."""
        if os.getpid() == self._process:
            self._closed = self._process_ends = True
            for _, ended in list(self._calls.values()):
                ended.acquire(timeout=max(0.0, until - time.monotonic()))

    def _is_inside(self) -> bool:
        own = threading.get_ident()
        return any(thread == own for thread, _ in list(self._calls.values()))

    def _wait(self) -> None:
        for _, ended in list(self._calls.values()):
            with ended:
                pass

    def _release_once(self) -> None:
        try:
            release = self._release.pop()
        except IndexError:
            return
        release()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            # The engine's threads did not survive the fork; waiting for them would hang for ever.
            raise ClosedError("This session was loaded before a fork. Load a session in each process.")

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("This session is closed. Load it again: Session.load(folder).")
        if self._fault is not None:
            raise RuntimeFault(f"This session broke down earlier and computes no more: {self._fault}")


@atexit.register
def _close_all() -> None:
    """A daemon thread that is in an engine when the interpreter ends would abort the process."""
    until = time.monotonic() + _LONGEST_EXIT
    for lifetime in list(_OPEN):
        lifetime.close_at_exit(until)
