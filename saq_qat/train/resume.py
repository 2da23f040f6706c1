"""Going on from a checkpoint: whether there is one, and whether it is one of this very training."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from saq_qat.data.digest import images_digest
from saq_qat.data.open import ImageData
from saq_qat.data.record import check_data_record
from saq_qat.errors import ArtifactError, RecipeError
from saq_qat.recipe.load import as_tuples
from saq_qat.recipe.schema import CalibrationStage, DescentStage, Recipe, Stage, StatisticsStage
from saq_qat.train.checkpoint import Checkpoint, Form, Position, check_format, newest_checkpoint
from saq_qat.train.distributed import Processes
from saq_qat.train.folder import RESOLVED, changes
from saq_qat.train.log import RunLog
from saq_qat.train.teacher import LoadedTeacher
from saq_qat.train.trained_numbers import check_finite

__all__ = ["check_log", "check_same_training", "checkpoint_to_resume"]

_ACCURACIES = frozenset({"top1", "top5", "deploy_top1"})
_NAMES = ("last", "last.previous", "best", "best.previous")


def checkpoint_to_resume(folder: Path, log: RunLog) -> Checkpoint | None:
    """The checkpoint that the run in ``folder`` goes on from; None if it was ended before it did anything.

    Raises:
        ArtifactError: its checkpoints are gone or damaged, which is told with what is there; nothing is
            changed.
        FormatError: a newer version wrote one of them, which going on would replace.
    """
    checkpoints = folder / "checkpoints"
    for name in _NAMES:
        check_format(checkpoints / name)
    found = newest_checkpoint(checkpoints / "last")
    if found is None:
        _refuse_to_start_over(checkpoints, log)
    return found


def _refuse_to_start_over(checkpoints: Path, log: RunLog) -> None:
    """A run saves before its first line and its first step: whatever is left has lost its checkpoints."""
    left = [f"checkpoints/{name}" for name in _NAMES if os.path.lexists(checkpoints / name)]
    if log.size:
        left.append(f"log.jsonl ({log.size} bytes)")
    if not left:
        return
    export = f" best can be exported: saq-qat export {checkpoints.parent} --checkpoint best." * any(
        name.endswith("best") for name in left
    )
    raise ArtifactError(
        f"{checkpoints.parent}: there is no checkpoint to go on from: checkpoints/last and "
        f"checkpoints/last.previous are missing. What is there: {', '.join(left)}; all of it stays. "
        f"Put the checkpoint back, or start a new run.{export}"
    )


def check_same_training(
    checkpoint: Checkpoint,
    recipe: Recipe,
    folder: Path,
    processes: Processes,
    images: ImageData,
    teacher: LoadedTeacher | None,
    *,
    batches: int,
) -> None:
    """Refuse a checkpoint of another training, or one that stands where this training never stands.

    Args:
        batches: optimizer steps in an epoch.

    Raises:
        RecipeError: it was started with another number of processes, which would change every perturbation;
            or with another recipe.
        ArtifactError: teacher or images are others, it holds numbers that are not finite, or its position
            lies outside of the recipe.
    """
    where = checkpoint.folder or folder
    _check_processes(checkpoint, folder, processes)
    if checkpoint.recipe is not None:
        _check_recipe(checkpoint.recipe, recipe, where)
    _check_standing(checkpoint, recipe, batches, where)
    _check_teacher(checkpoint, folder, teacher)
    if checkpoint.data is not None:
        check_data_record(checkpoint.data, images, str(where))
    _check_images(checkpoint, images, where)
    check_finite(checkpoint.model, f"{where / 'model.safetensors'}")
    check_finite(checkpoint.training, f"{where / 'optimizer.safetensors'}")


def _check_processes(checkpoint: Checkpoint, folder: Path, processes: Processes) -> None:
    if checkpoint.world_size != processes.world_size:
        raise RecipeError(
            f"{folder}: started with {checkpoint.world_size} process(es), now {processes.world_size}; "
            "each perturbs its own share of a batch. Resume with torchrun "
            f"--nproc-per-node={checkpoint.world_size}."
        )


def _check_recipe(trained: Mapping[str, Any], recipe: Recipe, where: Path) -> None:
    try:
        before = Recipe.model_validate(as_tuples(dict(trained)))
    except ValidationError as error:
        raise ArtifactError(
            f"{where / 'state.json'}: its recipe is none that this version reads: {error.errors()[0]['msg']}"
            ". Use the version that started the run, or start a new one."
        ) from error
    changed = changes(before, recipe)
    if changed:
        raise RecipeError(
            f"{where}: was trained with another recipe than the {RESOLVED} beside it, which was edited "
            "since:\n" + "\n".join(changed) + "\nUndo the changes, or start a new run."
        )


def _check_standing(checkpoint: Checkpoint, recipe: Recipe, batches: int, where: Path) -> None:
    at, stages = checkpoint.position, recipe.train.stages
    if at == Position() and checkpoint.form == "float":
        return
    if at.stage < len(stages):
        stage = stages[at.stage]
        length = batches if isinstance(stage, DescentStage) else 0
        before = sum(_steps(each, batches) for each in stages[: at.stage])
        stands = Position(at.stage, at.epoch, at.batch, before + at.epoch * length + at.batch)
        inside = (0, 0) < (at.epoch, at.batch) <= (_epochs(stage), 0) and at.batch <= length
        if inside and at == stands and checkpoint.form == _form(recipe, at.stage):
            _check_judged(checkpoint, recipe, where)
            return
    raise ArtifactError(
        f"{where / 'state.json'}: stage {at.stage}, epoch {at.epoch}, batch {at.batch}, step {at.step} as "
        f"{checkpoint.form} is no place where this recipe saves, with {len(stages)} stage(s) and {batches} "
        "batches in an epoch. Its hash is right, so it was edited, or the number of images is another; put "
        "both back as they were, or start a new run."
    )


def _check_judged(checkpoint: Checkpoint, recipe: Recipe, where: Path) -> None:
    """An epoch that was evaluated leaves its accuracies, until one that is not comes; none leaves others."""
    at, accuracy, best = checkpoint.position, checkpoint.progress["accuracy"], checkpoint.progress["best"]
    every, stage = recipe.train.evaluate_epochs, recipe.train.stages[at.stage]
    if not isinstance(stage, DescentStage):
        every = 1
    judged_here = at.epoch >= min(every, _epochs(stage))
    judged_now = at.epoch > 0 and (at.epoch % every == 0 or at.epoch == _epochs(stage))
    wrong = None
    if bool(accuracy) != (judged_here or at.stage > 0) or (accuracy and not {*accuracy} >= _ACCURACIES):
        wrong = f"accuracy is {accuracy}"
    elif judged_now and (accuracy["top1"] is None or accuracy["top5"] is None):
        wrong = f"accuracy of the epoch before is {accuracy}"
    elif (best is None) == judged_here and (judged_here or at.stage == 0):
        wrong = f"best is {best}"
    if wrong:
        raise ArtifactError(
            f"{where / 'state.json'}: {wrong}, which no training leaves behind {at.epoch} whole epoch(s) of "
            f"stage {at.stage}. Its hash is right, so it was edited, or another program wrote it. Put back "
            "what training wrote, or start a new run."
        )


def _epochs(stage: Stage) -> int:
    return stage.epochs if isinstance(stage, DescentStage) else 1


def _steps(stage: Stage, batches: int) -> int:
    return stage.epochs * batches if isinstance(stage, DescentStage) else 0


def _form(recipe: Recipe, number: int) -> Form:
    """Of the network in a stage; statistics are those of the stage before."""
    found: Form = "float"
    for stage in recipe.train.stages[: number + 1]:
        if isinstance(stage, CalibrationStage):
            found = "quantized"
        elif not isinstance(stage, StatisticsStage):
            found = stage.kind
    return found


def _check_teacher(checkpoint: Checkpoint, folder: Path, teacher: LoadedTeacher | None) -> None:
    before = checkpoint.progress.get("teacher")
    if teacher is not None and teacher.sha256 != before:
        raise ArtifactError(
            f"{folder}: started with another teacher: the SHA-256 of its weights was {before}, and that of "
            f"{teacher.source} is {teacher.sha256}. Put the weights back, or start a new run."
        )


def _check_images(checkpoint: Checkpoint, images: ImageData, where: Path) -> None:
    before = checkpoint.progress.get("images")
    if before is not None and before != images_digest(images):
        raise ArtifactError(
            f"{where}: was trained on other images than data names here: their labels, names or pixels in "
            "memory differ. The folder may lie elsewhere (data.root), but its images must be the same; put "
            "them back, or start a new run."
        )


def check_log(log: RunLog, checkpoint: Checkpoint) -> None:
    """Refuse to cut anything from the log but lines that the training will write again.

    Raises:
        ArtifactError: the log is no regular file, or the checkpoint says that its line ends where none
            does, or before lines of steps that it has made; or a line that is kept is damaged.
    """
    if log.path.exists() and not log.path.is_file():
        raise ArtifactError(
            f"{log.path}: is no regular file, so no line can be kept in it. Put log.jsonl back as training "
            "left it, or remove what stands in its place."
        )
    size, step = checkpoint.progress["log_bytes"], checkpoint.position.step
    if log.size < size:
        warnings.warn(
            f"{log.path}: has {log.size} bytes, and {size} when the checkpoint was saved; the lines that are "
            "missing are lost, with the rest of one that was cut short. Training goes on, and its "
            "result is the same.",
            stacklevel=2,
        )
    elif not log.may_be_cut(size, step):
        raise ArtifactError(
            f"{checkpoint.folder}: its state.json says that log.jsonl had {size} bytes at step {step}, but "
            "no line ends there, or lines of earlier steps follow, which nothing would write again. Nothing "
            "was cut. Put log.jsonl and the checkpoint back as training left them, or delete from log.jsonl "
            f"what is damaged and all lines behind step {step}."
        )
    log.check(size)
