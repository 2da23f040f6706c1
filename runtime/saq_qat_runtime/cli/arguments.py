"""Arguments that several verbs share."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saq_qat_runtime.bench.cpu import BenchSize

__all__ = ["add_backend", "add_bundle", "add_how_to_run", "add_measuring", "bench_size", "positive"]

_BATCHES = (1, 8)
_LARGEST_BATCH = 4096


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """The folder of the bundle."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")


def add_backend(parser: argparse.ArgumentParser, choices: Sequence[str], help_text: str) -> None:
    """What runs it."""
    parser.add_argument("--backend", choices=choices, default="auto", help=help_text)


def add_how_to_run(parser: argparse.ArgumentParser) -> None:
    """Which backend, with how many threads, and whether a failed proof is no obstacle."""
    from saq_qat_runtime.choose import BACKENDS

    add_backend(
        parser,
        ("auto", *BACKENDS),
        "what runs the bundle; auto: the first of these that can run it here (default)",
    )
    parser.add_argument(
        "--threads", type=positive, help="threads on the CPU (default: as the engine chooses)"
    )
    parser.add_argument(
        "--allow-failed-gate", action="store_true", help="run a bundle although it is not proved"
    )


def add_measuring(parser: argparse.ArgumentParser, *, alone: bool = True) -> None:
    """How much latency is measured; `alone` where the verb does nothing else."""
    if alone:
        parser.add_argument("--threads", type=positive, help="threads of an engine on the CPU (default: 1)")
    parser.add_argument(
        "--batch" if alone else "--bench-batch",
        dest="batches",
        type=_batch,
        action="append",
        metavar="N",
        help="batch size to measure; may be given again (default: 1 and 8)",
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=10.0, help="time for each batch size (default: 10)"
    )


def bench_size(arguments: argparse.Namespace) -> "BenchSize":
    """What `add_measuring` took."""
    from saq_qat_runtime.bench.cpu import BenchSize

    batches = tuple(dict.fromkeys(arguments.batches or _BATCHES))
    return BenchSize(batches=batches, threads=arguments.threads or 1, seconds=arguments.seconds)


def _batch(text: str) -> int:
    number = positive(text)
    if number > _LARGEST_BATCH:
        raise argparse.ArgumentTypeError(f"must be at most {_LARGEST_BATCH}, got {text}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.01 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least 0.01, got {text}")
    return number


def positive(text: str) -> int:
    """A whole number from 1 on; argparse tells ValueError as a wrong argument."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number
