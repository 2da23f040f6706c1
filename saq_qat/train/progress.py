"""What a training tells while it runs, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OnProgress", "Progress", "TeacherAccuracy", "TrainingResult", "silent"]


@dataclass(frozen=True)
class TeacherAccuracy:
    """Who teaches, and how right it is on the validation images, in percent."""

    source: str
    top1: float
    top5: float


@dataclass(frozen=True)
class Progress:
    """State after a step, or after an epoch's evaluation (``top1`` is then a number).

    Attributes:
        stage: kind of the stage; ``stage_number`` of ``stages`` counts from 1, as ``epoch`` and ``batch`` do.
        step: steps since the start of the run, of ``steps`` in all; this process began behind ``first_step``.
        loss: of the last step, or the epoch's mean; not a number for a calibration, which computes none.
        top1: of the network as it trains, in percent.
        deploy_top1: of the deploy view, in percent.
        teacher: the recipe's, if it has one; None in a run that goes on.
    """

    stage: str
    stage_number: int
    stages: int
    epoch: int
    epochs: int
    batch: int
    batches: int
    step: int
    steps: int
    first_step: int
    loss: float
    images_per_second: float
    top1: float | None = None
    deploy_top1: float | None = None
    teacher: TeacherAccuracy | None = None


OnProgress = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class TrainingResult:
    """End of a training; accuracies in percent, ``deploy_top1`` None for a float network.

    ``best_top1`` is that of the checkpoint ``best``: of the deploy view, or of the float network. This
    process made the last ``steps_now`` of all ``steps``. For ``waited`` of all ``seconds`` of the run the
    steps stood still until their batch was there.
    """

    folder: Path
    top1: float
    top5: float
    deploy_top1: float | None
    best_top1: float
    steps: int
    steps_now: int
    seconds: float
    waited: float
