"""Who may use a session: many threads at once; nobody after it was closed, broke down, or crossed a fork."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from saq_qat_runtime.errors import ClosedError, RuntimeFault

__all__ = ["Lifetime"]


class Lifetime:
    """Counts calls in flight, so that closing waits for them, and remembers the first fault."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._changed = Condition()
        self._running = 0
        self._closed = False
        self._fault: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether calls are still accepted."""
        return not self._closed and self._fault is None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Hold the session open; a RuntimeFault inside is remembered and raised again by every later call.

        Raises ClosedError after `close` and in a forked child, RuntimeFault after a fault.
        """
        self._begin()
        try:
            yield
        except RuntimeFault as error:
            self._fault = str(error)
            raise
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def close(self) -> bool:
        """Refuse new calls and wait for those in flight; True for the first close in the loading process."""
        if os.getpid() != self._process:
            return False
        with self._changed:
            first, self._closed = not self._closed, True
            self._changed.wait_for(lambda: self._running == 0)
        return first

    def _begin(self) -> None:
        if os.getpid() != self._process:
            # The engine's threads did not survive the fork; waiting for them would hang for ever.
            raise ClosedError("This session was loaded before a fork. Load a session in each process.")
        with self._changed:
            if self._closed:
                raise ClosedError("This session is closed. Load it again: Session.load(folder).")
            if self._fault is not None:
                raise RuntimeFault(f"This session broke down earlier and computes no more: {self._fault}")
            self._running += 1
