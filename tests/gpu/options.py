"""What the command line asks for."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["ARMS", "PARTS", "Options", "parsed"]

PARTS = ("training", "codes", "steps", "product", "rtx")
ARMS = ("plain", "saq", "plain2x", "saq_sum", "sam")


@dataclass(frozen=True)
class Options:
    """As ``python -m tests.gpu --help`` describes them.

    Attributes:
        rates, rhos: by bit-width, where they are not to be searched.
    """

    output: Path
    work: Path
    parts: tuple[str, ...]
    modes: tuple[str, ...]
    data: tuple[Path, ...]
    weights: Path | None
    seconds: float
    steps_seconds: float
    seeds: int
    bits: tuple[int, ...]
    arms: tuple[str, ...]
    rates: dict[int, float]
    rhos: dict[int, float]
    execution: str
    tf32: bool
    workers: int
    bundle: Path | None
    rtx_wheel_parts: Path | None
    rehearse: bool
    again: bool

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.rehearse else "cuda")


def parsed(arguments: Sequence[str] | None = None) -> Options:
    """The options; exits with a message for those that contradict each other."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, default=Path("runs/gpu"), help="folder of one JSON file for each part")
    add("--work", type=Path, default=Path("runs/gpu/work"), help="folder of decoded images")
    add("--parts", type=_words(PARTS), default=PARTS, help=f"of {','.join(PARTS)}")
    add(
        "--mode",
        type=_words(("search", "final")),
        default=("search", "final"),
        help="of training: search,final",
    )
    add(
        "--data",
        type=Path,
        action="append",
        default=[],
        help="zip of train/<class>/*, val/<class>/*; repeatable",
    )
    add("--weights", type=Path, help="full-precision ResNet-20 with option-A shortcuts")
    add("--seconds", type=float, default=300.0, help="that the training part may take; decides the epochs")
    add("--steps-seconds", type=float, default=120.0, help="after which the part steps begins nothing more")
    add("--seeds", type=int, default=8)
    add("--bits", type=lambda text: tuple(map(int, text.split(","))), default=(4, 2), help="bit-widths: 4,2")
    add("--arms", type=_words(ARMS), default=ARMS[:3], help=f"of {','.join(ARMS)}; plain and saq always")
    add("--learning-rate", action="append", default=[], metavar="W2=.01", help="instead of the search's")
    add("--rho", action="append", default=[], metavar="W2=.8", help="instead of the search's")
    add("--execution", choices=("auto", "compiled", "eager"), default="auto", help="of training")
    add("--tf32", action="store_true", help="let convolutions of the training part round to TF32")
    add(
        "--workers",
        type=int,
        default=min(16, os.cpu_count() or 1),
        help="processes that decode and calibrate",
    )
    add("--bundle", type=Path, help="exported folder with model.tensorrt.onnx, for the part rtx")
    add("--rtx-wheel-parts", type=Path, help="folder with pieces of TensorRT-RTX's wheels, joined by name")
    add("--rehearse", action="store_true", help="every part at a tiny size on the CPU")
    add("--again", action="store_true", help="parts that are complete too")
    given = parser.parse_args(arguments)
    if not given.rehearse and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; --rehearse runs every part at a tiny size on the CPU")
    if "training" in given.parts and not given.rehearse and not (given.data and given.weights):
        parser.error("training needs --data and --weights")
    return Options(
        output=given.output,
        work=given.work,
        parts=given.parts,
        modes=given.mode,
        data=tuple(given.data),
        weights=given.weights,
        seconds=given.seconds,
        steps_seconds=given.steps_seconds,
        seeds=given.seeds,
        bits=given.bits,
        arms=tuple(dict.fromkeys(("plain", "saq", *given.arms))),
        rates=_by_bits(given.learning_rate),
        rhos=_by_bits(given.rho),
        execution=given.execution,
        tf32=given.tf32,
        workers=given.workers,
        bundle=given.bundle,
        rtx_wheel_parts=given.rtx_wheel_parts,
        rehearse=given.rehearse,
        again=given.again,
    )


class _words:  # noqa: N801  # reads as a function in the table above
    def __init__(self, known: tuple[str, ...]) -> None:
        self._known = known

    def __call__(self, text: str) -> tuple[str, ...]:
        words = tuple(text.split(","))
        for word in words:
            if word not in self._known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(self._known)}")
        return words


def _by_bits(pairs: Sequence[str]) -> dict[int, float]:
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        found[int(name.removeprefix("W"))] = float(value)
    return found
