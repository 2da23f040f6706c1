"""Runs the process that tries cases, reads what it says, and outlives it."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

__all__ = ["LONGEST_SILENCE", "Finding", "Told", "tried"]

LONGEST_SILENCE = 60.0
"""Seconds in which a process must say something or compute something."""
_LITTLE = 0.05
"""Seconds of processor time that are nothing."""
_LAST_WORDS = 3000


@dataclass
class Finding:
    """What went wrong first at `seed`, and how often so."""

    seed: int
    text: str
    count: int = 1


@dataclass
class Told:
    """What became of the cases, and the findings by what they have in common."""

    cases: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, where: str, seed: int, text: str) -> None:
        """One finding more."""
        if where in self.findings:
            self.findings[where].count += 1
        else:
            self.findings[where] = Finding(seed, text)


def tried(
    surface: str,
    first: int,
    *,
    cases: int | None = None,
    seconds: float | None = None,
    keep: Path | None = None,
    silence: float = LONGEST_SILENCE,
) -> Told:
    """Try seeds from `first` on, in another process after each that crashed or hung.

    cases, seconds: whichever ends first; None for no limit. keep: folder for inputs. silence: seconds after
    which a case hangs.
    """
    told, seed, began = Told(), first, time.monotonic()
    last = None if cases is None else first + cases
    while (last is None or seed < last) and (seconds is None or time.monotonic() - began < seconds):
        options = ["--first", str(seed)]
        options += [] if last is None else ["--cases", str(last - seed)]
        options += [] if seconds is None else ["--seconds", str(seconds - (time.monotonic() - began))]
        options += [] if keep is None else ["--keep", str(keep)]
        reached = _one_process(surface, options, told, seed, silence)
        if reached is None:
            break
        seed = reached + 1
    told.seconds = time.monotonic() - began
    return told


def _one_process(surface: str, options: list[str], told: Told, first: int, silence: float) -> int | None:
    """The seed at which it was lost, None if it ended well."""
    command = [sys.executable, "-m", "tests.fuzz.child", surface, *options]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as child,
    ):
        try:
            seed, answered, silent = _listen(_messages(child, silence), told)
            silent = silent or not _ended(child)
        finally:
            _stop(child)
        if seed is None:
            raise RuntimeError(f"{surface}: no case could begin from seed {first} on. {_last_words(errors)}")
        if child.returncode == 0 and answered:
            return None
        told.cases += 1
        what = f"no answer in {silence:.0f} s" if silent else f"ended with status {child.returncode}"
        told.add(f"{surface}: {what}", seed, _last_words(errors))
        return seed


def _listen(messages: Iterator[dict[str, Any]], told: Told) -> tuple[int | None, bool, bool]:
    """The last seed that was begun, whether its outcome was told, and whether nothing came for long."""
    seed, answered = None, True
    try:
        for message in messages:
            if "seed" in message:
                seed, answered = int(message["seed"]), False
                continue
            told.cases += 1
            answered = True
            if "outcome" in message:
                told.outcomes[message["outcome"]] += 1
            else:
                told.add(message["where"], seed or 0, message["finding"])
    except TimeoutError:
        return seed, answered, True
    return seed, answered, False


def _messages(child: subprocess.Popen[bytes], silence: float) -> Iterator[dict[str, Any]]:
    """The lines of JSON that come, until there are no more; raises TimeoutError for one that only waits."""
    assert child.stdout is not None
    rest, patience = b"", LONGEST_SILENCE
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            before = _processor_time(child.pid)
            if not selector.select(patience):
                # A machine that is busy gives it little; what computes without end is ended by its own limit.
                if _processor_time(child.pid) - before > _LITTLE:
                    continue
                raise TimeoutError
            read = os.read(child.stdout.fileno(), 1 << 16)
            if not read:
                return
            *lines, rest = (rest + read).split(b"\n")
            # Engines write to the same stream now and then.
            yield from (json.loads(line) for line in lines if line.startswith(b'{"'))
            patience = silence


def _processor_time(process: int) -> float:
    """Seconds that all threads of a process took so far: utime and stime of proc(5)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ended(child: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):  # the answer is whether it did
        child.wait(5)
    return child.returncode is not None


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGUSR1)  # writes the stack of every thread
        time.sleep(1)
        child.kill()
    child.wait()


def _last_words(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _LAST_WORDS))
    return errors.read().decode(errors="replace")
