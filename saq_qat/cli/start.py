"""Where the command starts: it leaves at once, and quietly, while its own modules are being imported."""

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]


def main() -> None:
    """Import the command line and run it; a signal that ends it meanwhile ends it with its own exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave)
    from saq_qat.cli import main as command_line

    command_line.main()


def _leave(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        sys.stderr.write("interrupted\n")
        sys.stderr.flush()
    os._exit(128 + number)  # nothing is open yet; to raise would end in whatever an import makes of it
