"""What a run's log tells of its training, epoch by epoch (paper Figures 3 and 4)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

__all__ = ["Epoch", "training_curves"]


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training; None where the log has no such number.

    Attributes:
        number: counted over all stages, from 1.
        train_loss: mean over its steps, on augmented images.
        val_loss, val_top1: of the validation images, the latter in percent.
        cosine: between g_s, the gradient of the perturbed loss, and g (Figure 4).
        step_cosine: between the gradients of a logged step and the step before it.
        fluctuation: mean absolute difference of the losses of neighbouring logged steps.
    """

    number: int
    stage: str
    train_loss: float | None
    val_loss: float | None
    val_top1: float | None
    cosine: float | None
    step_cosine: float | None
    fluctuation: float | None


def training_curves(lines: Iterable[Mapping[str, Any]]) -> tuple[Epoch, ...]:
    """The epochs of a log.jsonl, each with the means over its logged steps."""
    epochs: list[Epoch] = []
    steps: list[Mapping[str, Any]] = []
    for line in lines:
        if line.get("event") == "step":
            steps.append(line)
        elif line.get("event") == "epoch":
            epochs.append(_epoch(len(epochs) + 1, line, steps))
            steps = []
    return tuple(epochs)


def _epoch(number: int, line: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> Epoch:
    losses = _known(steps, "loss")
    return Epoch(
        number=number,
        stage=str(line.get("stage")),
        train_loss=line.get("loss"),
        val_loss=line.get("val_loss"),
        val_top1=line.get("top1"),
        cosine=_mean(_known(steps, "cosine")),
        step_cosine=_mean(_known(steps, "step_cosine")),
        fluctuation=_mean([abs(after - before) for before, after in pairwise(losses)]),
    )


def _known(steps: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    return [float(step[key]) for step in steps if step.get(key) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
