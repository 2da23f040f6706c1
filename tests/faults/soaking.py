"""Soaks as commands of their own: what they print is the evidence."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["soaked"]

_ROOT = Path(__file__).parents[2]


def soaked(module: str, *arguments: str) -> str:
    """What `python -m tests.faults.<module>` printed; fails with it if that did not end well."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", f"tests.faults.{module}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
