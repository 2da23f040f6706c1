"""A surface whose second case has the fault that TRAP counts out, to see that each is told."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random

from tests.fuzz.surface import Case, Surface

__all__ = ["SURFACE", "TRAPS"]


def _raise() -> None:
    raise KeyError("an error that no user should see")


def _take_memory() -> int:
    return len(b"x" * (60 << 20))


def _take_all_memory() -> None:
    bytearray(100 << 30)


def _compute_long() -> None:
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass


def _compute_for_ever() -> None:
    while True:
        pass


TRAPS = (
    ("KeyError at traps.py", _raise),
    ("AssertionError at surface.py", _take_memory),
    ("MemoryError at traps.py", _take_all_memory),
    ("AssertionError at surface.py", _compute_long),
    ("traps: ended with status -6", os.abort),
    ("traps: ended with status -24", _compute_for_ever),
    ("traps: no answer", lambda: time.sleep(60)),
)
"""What is told of each."""


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    _, trap = TRAPS[int(os.environ["TRAP"])]
    cases = count()

    def case(_random: Random) -> str:
        (folder / "input").write_text("x")
        if next(cases) == 1:
            trap()
        return "fine"

    yield case


SURFACE = Surface("traps", _opened, seconds=0.05, mebibytes=30)
