"""Fuzzing for long: each surface in turn, in processes of its own, whose crashes and hangs are findings.

`python -m tests.fuzz --minutes 30` tries all with fresh seeds, which it prints; with names, these alone.
`python -m tests.fuzz recipes --seed 123` tries one case again and shows what it raises; with
`--keep FOLDER` its input stays there. Exits 1 if anything was found.
"""

import argparse
import secrets
import signal
import sys
from pathlib import Path

from tests.fuzz.supervise import Told, tried
from tests.fuzz.surface import SURFACES


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Tries inputs that are harmed at random."
    )
    parser.add_argument(
        "surfaces", nargs="*", metavar="SURFACE", help=f"of {', '.join(SURFACES)}; all if left out"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="for all of them together")
    parser.add_argument("--seed", type=int, help="try the case of this seed alone")
    parser.add_argument("--cases", type=int, help="try as many seeds from --seed on, however long it takes")
    parser.add_argument("--keep", type=Path, help="folder for the last input of each process")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the process of the cases is ended too
    unknown = sorted(set(given.surfaces) - set(SURFACES))
    if unknown:
        parser.error(f"no such surface: {', '.join(unknown)}; there are {', '.join(SURFACES)}")
    names = given.surfaces or list(SURFACES)
    shares = sum(SURFACES[name] for name in names)
    found = 0
    for name in names:
        first = secrets.randbelow(10**9) if given.seed is None else given.seed
        cases = given.cases or (None if given.seed is None else 1)
        seconds = None if cases else 60 * given.minutes * SURFACES[name] / shares
        told = tried(name, first, cases=cases, seconds=seconds, keep=given.keep and given.keep / name)
        _show(name, first, told)
        found += len(told.findings)
    print(f"{found} findings" if found else "nothing was found")
    return 1 if found else 0


def _show(name: str, first: int, told: Told) -> None:
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(told.outcomes.items()))
    print(
        f"{name}: {told.cases:,} cases from seed {first} in {told.seconds:.0f} s: {outcomes or 'none'}",
        flush=True,
    )
    for where, finding in told.findings.items():
        print(f"FOUND {where}, {finding.count} times; python -m tests.fuzz {name} --seed {finding.seed}")
        print(finding.text, flush=True)


if __name__ == "__main__":
    sys.exit(_main())
