"""How far a long job is: a line on stderr now and then, with total and remaining time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["LINE_SECONDS", "counted", "stepwise"]

LINE_SECONDS = 5.0


@contextmanager
def counted(
    label: str,
    total: int,
    unit: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    stream: TextIO | None = None,
) -> Iterator[Callable[[int], None]]:
    """Gives a function that counts so many `unit` more as done; a last line says how long all took."""
    start = printed = clock()
    done = 0

    def show(note: str) -> None:
        line = f"{label}: {done}/{total} {unit} in {clock() - start:.1f} s{note}"
        print(line, file=stream or sys.stderr, flush=True)

    def advance(steps: int) -> None:
        nonlocal done, printed
        done += steps
        if clock() - printed >= LINE_SECONDS and done < total:
            printed = clock()
            show(f", {(printed - start) * (total - done) / max(done, 1):.0f} s left")

    yield advance
    show("")


def stepwise(label: str, clock: Callable[[], float] = time.monotonic) -> Callable[[str], None]:
    """Gives a function that says what is being done, and how long everything before it took."""
    start = clock()

    def on_step(step: str) -> None:
        print(f"{label}: {step} ({clock() - start:.1f} s so far)", file=sys.stderr, flush=True)

    return on_step
