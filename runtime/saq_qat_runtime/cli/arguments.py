"""Arguments that several verbs share."""

import argparse
from pathlib import Path

__all__ = ["add_bundle", "add_engine_choice", "positive"]


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """The folder of the bundle."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")


def add_engine_choice(parser: argparse.ArgumentParser) -> None:
    """Which engine runs it, with how many threads, and whether a failed proof is no obstacle."""
    from saq_qat_runtime.choose import BACKENDS

    parser.add_argument(
        "--engine",
        choices=("auto", *BACKENDS),
        default="auto",
        help="what runs the bundle; auto: the first of these that can run it here (default)",
    )
    parser.add_argument(
        "--threads", type=positive, help="threads on the CPU (default: as the engine chooses)"
    )
    parser.add_argument(
        "--allow-failed-gate", action="store_true", help="run a bundle although it is not proved"
    )


def positive(text: str) -> int:
    """A whole number from 1 on; argparse tells ValueError as a wrong argument."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number
