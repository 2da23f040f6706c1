"""A command for a parent that wants it to stop, and to save, when the parent dies: ``python -m`` this module.

The parent holds the other end of standard input; that it closes is all a process learns of a parent that was
killed.
"""

import os
import signal
import sys
import threading

from saq_qat.cli.main import main

__all__ = ["COMMAND"]

COMMAND = (sys.executable, "-m", "saq_qat.cli.supervised")
"""What the arguments of ``saq-qat`` stand behind."""


def _stop_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    main()
