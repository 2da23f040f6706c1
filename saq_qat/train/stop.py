"""SIGTERM, SIGINT and SIGHUP end a training at a step's end, with a checkpoint; a second signal at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from saq_qat.errors import SaqError

__all__ = ["Stop", "TrainingStoppedError", "stop_on_signals"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class TrainingStoppedError(SaqError):
    """The training was asked to stop and has saved a checkpoint; exit code 128 + signal, as in shells."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Stop:
    """Whether this process was asked to stop; ``number`` is the signal, 0 if none."""

    number = 0

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self.number not in (0, number):
            return  # a terminal that closes, or systemd, sends it behind another
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Note signals in this context, then restore their handlers; only the main thread receives any.

    A SIGHUP that is ignored already (nohup) stays ignored.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    noted = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop._note) for number in noted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
