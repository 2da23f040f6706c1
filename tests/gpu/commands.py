"""Commands of the product in processes of their own."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["COMMAND", "ran"]

COMMAND = (sys.executable, "-c", "from saq_qat.cli.main import main; main()")
"""``saq-qat``, of the tree that is imported here."""

_KEPT = 6000


def ran(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Exit code (None if it had to be stopped), seconds, and the end of what a command said."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, env=environment
        )
    except subprocess.TimeoutExpired as stopped:
        said = (stopped.stdout or b"").decode() + (stopped.stderr or b"").decode()
        return {"code": None, "seconds": seconds, "output": f"{said[-_KEPT:]}\nstopped after {seconds:.0f} s"}
    return {
        "code": done.returncode,
        "seconds": time.monotonic() - began,
        "output": (done.stdout + done.stderr)[-_KEPT:],
    }
