"""The training of a recipe, from its first stage to its last, as a plain loop."""

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from saq_qat.data.batches import train_batches
from saq_qat.data.cost import Waiting
from saq_qat.data.open import open_data
from saq_qat.errors import DataError, DivergedError, SaqError
from saq_qat.optim.build import set_learning_rate
from saq_qat.optim.update import StepResult
from saq_qat.quant.network import WeightsTooLargeError
from saq_qat.recipe.schema import CalibrationStage, DescentStage, Recipe, Stage
from saq_qat.train.checkpoint import Form, Position
from saq_qat.train.descent import Descent
from saq_qat.train.determinism import repeatable_kernels, seed_step
from saq_qat.train.distributed import joined_processes
from saq_qat.train.ending import logged_end
from saq_qat.train.evaluate import evaluate_both, evaluate_on
from saq_qat.train.files import locked, make_folder
from saq_qat.train.folder import check_folder, write_resolved
from saq_qat.train.forms import next_form
from saq_qat.train.progress import OnProgress, TeacherAccuracy, TrainingResult, silent
from saq_qat.train.reporting import report_epoch, report_step
from saq_qat.train.state import Training, begin_or_resume
from saq_qat.train.statistics import estimate_statistics, require_statistics
from saq_qat.train.stop import stop_on_signals
from saq_qat.train.teacher import load_teacher

__all__ = ["run_training"]


def run_training(
    recipe: Recipe, run_folder: Path, *, resume: bool = False, on_progress: OnProgress = silent
) -> TrainingResult:
    """Train ``recipe`` in ``run_folder``, one stage after the other.

    With ``resume``, goes on from the checkpoint ``last`` in that folder; on the CPU with
    ``train.deterministic`` the outcome equals that of an uninterrupted training bit for bit. Under
    torchrun, every process calls this with the same arguments.

    Raises:
        TrainingStoppedError: SIGTERM or SIGINT came; a checkpoint was saved.
        DivergedError: too many steps in a row were not finite.
        SaqError: the recipe, the data, a checkpoint or the machine does not allow it.
    """
    with ExitStack() as context:
        processes = context.enter_context(joined_processes())
        processes.share_of(recipe.train.batch_size, recipe.train.micro_batch_size)
        make_folder(run_folder)
        if processes.is_first:
            context.enter_context(locked(run_folder))
        context.enter_context(repeatable_kernels(recipe.train.deterministic))
        stop = context.enter_context(stop_on_signals())
        check_folder(recipe, run_folder, resume=resume)
        images = open_data(recipe.data, recipe.seed)
        wanted = recipe.train.teacher
        teacher = None if wanted is None else load_teacher(wanted, images, processes.device)
        training = begin_or_resume(
            recipe, run_folder, processes, images, teacher, stop, on_progress, resume=resume
        )
        context.callback(training.log.close)
        require_statistics(training)
        _save_start(training)
        context.enter_context(logged_end(training))
        if training.position == Position():
            _judge_teacher(training)
        while training.position.stage < len(recipe.train.stages):
            _run_stage(training)
        return _finish(training)


def _save_start(training: Training) -> None:
    """Make the folder one of a run; from here on there is always a checkpoint to go on from."""
    if training.processes.is_first:
        write_resolved(training.recipe, training.folder)
    if training.position == Position():
        training.save("last", {})


def _judge_teacher(training: Training) -> None:
    """Log the teacher's accuracy, once at the start: its labels may be in another order than those here."""
    teacher = training.teacher
    if teacher is None:
        return
    found = evaluate_on(teacher.distillation.teacher, training.recipe, training.images, training.processes)
    training.teacher_accuracy = TeacherAccuracy(teacher.source, found.top1, found.top5)
    training.write_log(
        "teacher", source=teacher.source, sha256=teacher.sha256, top1=found.top1, top5=found.top5
    )
    if found.top1 <= 100.0 / len(training.images.classes):
        warnings.warn(
            f"train.teacher: {teacher.source} is right on {found.top1:.2f} % of the validation images, no "
            "more than by guessing. Are its classes in the order of data's? Was it trained on such input?",
            stacklevel=2,
        )


def _run_stage(training: Training) -> None:
    stage = training.recipe.train.stages[training.position.stage]
    if (training.position.epoch, training.position.batch) == (0, 0):
        # What ships ends the last stage: no epoch of an earlier one may stand in its way.
        training.best = None
    if isinstance(stage, DescentStage):
        _descend(training, stage)
    elif training.position.epoch == 0:
        if isinstance(stage, CalibrationStage):
            _enter_form(training, "quantized")
        else:
            estimate_statistics(training, stage)
        _close_epoch(training, stage, {})
    training.move(stage=training.position.stage + 1, epoch=0)


def _descend(training: Training, stage: DescentStage) -> None:
    _enter_form(training, stage.kind)
    descent = Descent(training, stage)
    if (training.position.epoch, training.position.batch) == (0, 0):
        training.write_log("execution", stage=stage.kind, **descent.execution.described())
    descent.resume(training)
    training.begin_average()
    while training.position.epoch < stage.epochs:
        try:
            _train_epoch(training, descent)
            _close_epoch(training, stage, descent.tensors())
        except DataError as error:
            raise _saved_before(error, training, descent) from error
    training.end_average()


def _saved_before(error: DataError, training: Training, descent: Descent) -> DataError:
    """The error of an image or of a loader, after a checkpoint with the batches before it.

    Of several processes only one meets it, and a checkpoint is made by all; what they saved last stands.
    """
    at = training.position
    if training.processes.world_size == 1 and (at.epoch, at.batch) != (0, 0):
        training.save("last", descent.tensors())
    return DataError(
        f"{error} The training stopped behind a checkpoint; go on with: saq-qat train --resume "
        f"{training.folder}"
    )


def _enter_form(training: Training, form: Form) -> None:
    """Give the network the form of the stage, calibrated on training images that every process sees alike."""
    if training.form == form:
        return
    recipe, device = training.recipe, training.processes.device

    def images() -> Iterator[Tensor]:
        batches = train_batches(
            training.images,
            batch_size=recipe.train.batch_size,
            seed=recipe.seed,
            epoch=training.epochs_before,
            device=device,
        )
        count = 0 if recipe.quant is None else recipe.quant.calibration_batches
        for _, (batch, _labels) in zip(range(count), batches, strict=False):
            yield batch

    try:
        network, training.plan = next_form(
            training.network, training.plan, recipe, training.form, form, images
        )
    except WeightsTooLargeError as error:
        if not training.position.step:
            raise
        raise DivergedError(
            f"Training diverged within {training.position.step} steps: {error} Or lower train.stages.*.lr."
        ) from error
    training.network, training.form = network.to(device), form
    training.write_log("stage", kind=form)


def _train_epoch(training: Training, descent: Descent) -> None:
    recipe, processes = training.recipe, training.processes
    start_batch = training.position.batch
    batches = Waiting(
        train_batches(
            training.images,
            batch_size=recipe.train.batch_size,
            seed=recipe.seed,
            epoch=training.epochs_before + training.position.epoch,
            start_batch=start_batch,
            rank=processes.rank,
            world_size=processes.world_size,
            device=processes.device,
            mixing=recipe.train.mixing,
        )
    )
    training.network.train()
    started = clock = time.monotonic()
    for images, labels in batches:
        at = training.position
        rate = descent.rate(at)
        set_learning_rate(descent.optimizer, rate)
        seed_step(recipe.seed, at.step, processes.rank)
        images = images.to(processes.device, memory_format=descent.execution.memory_format)
        result = _step(descent, at, images, labels.to(processes.device))
        training.loss_sum += result.loss if result.finite else 0.0
        if training.average is not None and result.finite:
            training.average.update(at.epoch * training.batches + at.batch)
        training.move(batch=at.batch + 1, step=at.step + 1)
        seconds, clock = time.monotonic() - clock, time.monotonic()
        angle = descent.turn(training.position.batch, finite=result.finite)
        report_step(training, descent.stage, result, rate, recipe.train.batch_size / seconds, angle)
        _save_if_due(training, descent)
    training.step_seconds = (clock - started) / max(1, training.batches - start_batch)
    training.epoch_waited = batches.seconds
    training.waited += batches.seconds


def _step(descent: Descent, at: Position, images: Tensor, labels: Tensor) -> StepResult:
    try:
        return descent.method.step(images, labels)
    except DivergedError as error:
        place = f"Batch {at.batch + 1} of epoch {at.epoch + 1} in stage {at.stage + 1}, step {at.step + 1}"
        raise DivergedError(f"{place}: {error}") from error
    except torch.OutOfMemoryError as error:
        raise SaqError(
            "The device ran out of memory in a training step. Lower train.micro_batch_size or "
            "train.batch_size, or set train.precision: bfloat16. Checkpoints are intact."
        ) from error


def _save_if_due(training: Training, descent: Descent) -> None:
    every = training.recipe.train.checkpoint_steps
    number = training.asked_to_stop()
    if number or (every is not None and training.position.step % every == 0):
        training.average_statistics()
        training.save("last", descent.tensors())
    if number:
        raise training.stopped(number)


def _close_epoch(training: Training, stage: Stage, tensors: dict[str, Tensor]) -> None:
    """Evaluate, log, save ``last`` with ``tensors`` to go on from, and ``best`` if it leads its stage."""
    training.average_statistics()
    better = _is_judged(training, stage) and _judge(training)
    report_epoch(training, stage)
    training.loss_sum = training.epoch_waited = training.step_seconds = 0.0
    training.move(epoch=training.position.epoch + 1, batch=0)
    if better:
        training.save("best", {})
    training.save("last", tensors)


def _is_judged(training: Training, stage: Stage) -> bool:
    """Whether the epoch that ends is one to judge; what an earlier one was worth is forgotten if not."""
    done, every = training.position.epoch + 1, training.recipe.train.evaluate_epochs
    judged = not isinstance(stage, DescentStage) or done % every == 0 or done == stage.epochs
    if not judged:
        training.accuracy = dict.fromkeys(training.accuracy)
    return judged


def _judge(training: Training) -> bool:
    """Evaluate what would ship; whether it leads its stage."""
    found, deployed = evaluate_both(
        training.judged, training.plan, training.recipe, training.images, training.processes
    )
    training.accuracy = {
        "top1": found.top1,
        "top5": found.top5,
        "val_loss": found.loss if math.isfinite(found.loss) else None,
        "deploy_top1": None if deployed is None else deployed.top1,
    }
    deciding = found.top1 if deployed is None else deployed.top1
    better = training.best is None or deciding > training.best
    training.best = deciding if training.best is None else max(training.best, deciding)
    return better


def _finish(training: Training) -> TrainingResult:
    accuracy = training.accuracy
    training.write_log(
        "end",
        **accuracy,
        best=training.best,
        seconds=round(training.seconds, 3),
        waited=round(training.waited, 3),
    )
    return TrainingResult(
        folder=training.folder,
        top1=accuracy["top1"] or 0.0,
        top5=accuracy["top5"] or 0.0,
        deploy_top1=accuracy["deploy_top1"],
        best_top1=training.best or 0.0,
        steps=training.position.step,
        steps_now=training.position.step - training.first_step,
        seconds=training.seconds,
        waited=training.waited,
    )
