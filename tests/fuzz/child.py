"""Tries cases of one surface in a process, and says so line by line: `python -m tests.fuzz.child NAME ...`.

It may crash, hang or be killed for its memory; the line before says at which seed.
"""

import argparse
import faulthandler
import json
import logging
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from tests.fuzz.surface import confine, limit_time, surface_named, try_case

__all__ = ["ADDRESS_SPACE"]

ADDRESS_SPACE = 2048
"""MiB beside what is there when the first case begins."""


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.child", description=__doc__)
    parser.add_argument("surface")
    parser.add_argument("--first", type=int, required=True, help="the first seed; the others follow it")
    parser.add_argument("--cases", type=int, default=sys.maxsize)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no case begins")
    parser.add_argument("--keep", type=Path, help="a folder for the inputs, in place of a temporary one")
    given = parser.parse_args()
    # The stack of a case that waits, for which the parent asks first, and of one that computes without end.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    faulthandler.register(signal.SIGXCPU, chain=True)
    logging.disable(logging.CRITICAL)
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
        _try_all(given, Path(tempfile.mkdtemp(dir=given.keep, prefix=f"{given.first}-")))
        return
    with tempfile.TemporaryDirectory() as temporary:
        _try_all(given, Path(temporary))


def _try_all(given: argparse.Namespace, folder: Path) -> None:
    surface = surface_named(given.surface)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what odd inputs make libraries say; tests make them errors
        with surface.opened(folder) as case:
            confine(ADDRESS_SPACE)
            end = time.monotonic() + given.seconds
            seed = given.first
            while seed < given.first + given.cases and time.monotonic() < end:
                _say(seed=seed)
                limit_time(surface.seconds)
                try:
                    _say(outcome=try_case(surface, case, seed))
                # Whatever a case raises is what is looked for.
                except Exception as error:
                    _say(finding="".join(traceback.format_exception(error)), where=_where(error))
                seed += 1


def _where(error: Exception) -> str:
    """What findings of one cause have in common."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


def _say(**message: object) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    _main()
