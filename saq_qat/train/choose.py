"""Which checkpoint of a run a command takes: the best epoch of its last stage, unless told otherwise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saq_qat.errors import ArtifactError
from saq_qat.recipe.load import load_recipe
from saq_qat.train.checkpoint import Checkpoint, Form, checkpoint_outline, newest_checkpoint
from saq_qat.train.folder import RESOLVED

__all__ = [
    "CheckpointName",
    "Choice",
    "Standing",
    "checkpoint_with",
    "choose_checkpoint",
    "glance",
    "standing_of",
]

CheckpointName = Literal["last", "best"]


@dataclass(frozen=True)
class Standing:
    """Where a checkpoint stands, and how right it is.

    Attributes:
        sha256: of its model.safetensors.
        stage: kind of the stage it ended an epoch of, or stood in; the ``number``-th of ``stages``.
        top1, deploy_top1: percent of the validation images, of the network itself and of its deploy view, as
            training found them; None if it has no such form, or was trained on since.
    """

    name: CheckpointName
    sha256: str
    form: Form
    stage: str
    number: int
    stages: int
    step: int
    top1: float | None
    deploy_top1: float | None

    @property
    def in_last_stage(self) -> bool:
        """Whether it belongs to the stage that ends the recipe."""
        return self.number == self.stages

    def __str__(self) -> str:
        return f"{self.name} (step {self.step}, {self.score})"

    @property
    def score(self) -> str:
        """What training found, in words: of the deploy view, where there is one."""
        if self.deploy_top1 is not None:
            return f"deployed top-1 {self.deploy_top1:.2f} %"
        return "not evaluated" if self.top1 is None else f"top-1 {self.top1:.2f} %"


@dataclass(frozen=True)
class Choice:
    """The checkpoint that is taken, and the other one.

    Attributes:
        other: None if the run has none, or it cannot be read.
        note: why the rule could not be followed, or what is wrong with the other; empty if nothing is.
    """

    taken: Standing
    other: Standing | None
    note: str

    def __str__(self) -> str:
        line = f"checkpoint {self.taken}"
        if self.other is not None and self.other.sha256 == self.taken.sha256:
            line += f"; {self.other.name} is the same network"
        elif self.other is not None:
            line += f"; {self.other.name} (step {self.other.step}) scores: {self.other.score}"
        return f"{line}. {self.note}" if self.note else line


def choose_checkpoint(run: Path, asked: CheckpointName | None = None) -> Choice:
    """The checkpoint that was asked for; else ``best`` of the run's last stage by deployed accuracy.

    A run without a ``best`` of its last stage (it was stopped before, or made by a version that compared
    epochs of several stages) gives ``last``, and the choice says why.

    Raises:
        ArtifactError: the folder is no run, or the checkpoint and the one before it are missing or damaged.
    """
    if asked is not None:
        other, note = _other(run, "last" if asked == "best" else "best")
        return Choice(_required(run, asked), other, note)
    best = standing_of(run, "best")
    if best is not None and best.in_last_stage:
        return Choice(best, *_other(run, "last"))
    return Choice(_required(run, "last"), best, _why_last(best))


def checkpoint_with(run: Path, sha256: str) -> CheckpointName:
    """The checkpoint whose model.safetensors has this digest: the one a bundle was exported from.

    Raises:
        ArtifactError: the run has it no more; names those it has.
    """
    found = [standing for name in _NAMES if (standing := standing_of(run, name)) is not None]
    names = [standing.name for standing in found if standing.sha256 == sha256]
    if names:
        return names[0]
    has = ", ".join(f"{standing.name} {standing.sha256[:12]}..." for standing in found) or "none"
    raise ArtifactError(
        f"{run}: the bundle was exported from checkpoint {sha256[:12]}..., which this run does not have; it "
        f"has {has} (SHA-256 of model.safetensors). Name the run it was exported from, or export again: "
        f"saq-qat export {run}"
    )


_NAMES: tuple[CheckpointName, ...] = ("best", "last")


def standing_of(run: Path, name: CheckpointName) -> Standing | None:
    """Where the checkpoint ``name`` stands; None if the run has none.

    Raises:
        ArtifactError: the folder is no run, or the checkpoint and the one before it are damaged.
    """
    _require_run(run)
    checkpoint = newest_checkpoint(run / "checkpoints" / name)
    return None if checkpoint is None else _standing(run, name, checkpoint)


def glance(run: Path) -> Standing | None:
    """Where the checkpoint stands that commands take; None if the run has none.

    Its tensors are neither read nor checked, so that many runs can be looked at in a moment.

    Raises:
        ArtifactError: the folder is no run, or what the checkpoint says of itself is damaged.
    """
    _require_run(run)
    for name in _NAMES:
        checkpoint = checkpoint_outline(run / "checkpoints" / name)
        standing = None if checkpoint is None else _standing(run, name, checkpoint)
        if standing is not None and (name == "last" or standing.in_last_stage):
            return standing
    return None


def _require_run(run: Path) -> None:
    if not (run / RESOLVED).is_file():
        raise ArtifactError(
            f"{run}: no run; it has no {RESOLVED}. Name a folder that saq-qat train has written."
        )


def _standing(run: Path, name: CheckpointName, checkpoint: Checkpoint) -> Standing:
    kinds = [stage.kind for stage in load_recipe(run / RESOLVED).train.stages]
    stage = checkpoint.position.stage
    judged = _judged(checkpoint)
    return Standing(
        name=name,
        sha256=checkpoint.sha256,
        form=checkpoint.form,
        stage=kinds[stage],
        number=stage + 1,
        stages=len(kinds),
        step=checkpoint.position.step,
        top1=judged.get("top1"),
        deploy_top1=judged.get("deploy_top1"),
    )


def _judged(checkpoint: Checkpoint) -> dict[str, float | None]:
    """What the evaluation of these very weights found; within an epoch, the numbers are of weights before."""
    return {} if checkpoint.position.batch else dict(checkpoint.progress["accuracy"])


def _required(run: Path, name: CheckpointName) -> Standing:
    found = standing_of(run, name)
    if found is None:
        folder = run / "checkpoints" / name
        raise ArtifactError(f"{folder}: no such checkpoint; the training has not saved one yet.")
    return found


def _other(run: Path, name: CheckpointName) -> tuple[Standing | None, str]:
    """The checkpoint that is not taken: a damaged one is told of, and hinders nobody."""
    try:
        return standing_of(run, name), ""
    except ArtifactError as error:
        return None, f"How {name} scores is unknown: {error}"


def _why_last(best: Standing | None) -> str:
    if best is None:
        return "It was taken because no epoch has ended yet, so the run has no best."
    return (
        f"It was taken because the run has no best of its last stage: best is of stage {best.number} of "
        f"{best.stages} ({best.stage})."
    )
