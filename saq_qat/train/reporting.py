"""Lines of log.jsonl and progress of a training in its loop."""

import math

from saq_qat.optim.update import StepResult
from saq_qat.recipe.schema import CalibrationStage, DescentStage, Stage, StatisticsStage
from saq_qat.train.log import clip_levels
from saq_qat.train.progress import Progress
from saq_qat.train.state import Training

__all__ = ["is_logged", "report_batch", "report_epoch", "report_step"]

_LINES_PER_EPOCH = 20


def is_logged(batch: int, batches: int) -> bool:
    """Whether the step of a batch, counted from 1, has a line of its own."""
    return batch % max(1, batches // _LINES_PER_EPOCH) == 0 or batch == batches


def report_step(
    training: Training,
    stage: DescentStage,
    result: StepResult,
    rate: float,
    images_per_second: float,
    step_cosine: float | None,
) -> None:
    """Show every step, log some twenty an epoch and every one that was skipped.

    Args:
        step_cosine: of the angle between this step's gradient and that of the step before, if it is known.
    """
    batch = training.position.batch
    where = {"stage": stage.kind, "epoch": training.position.epoch + 1}
    if not result.finite:
        training.write_log("skipped", **where)
    elif is_logged(batch, training.batches):
        training.write_log(
            "step",
            **where,
            loss=result.loss,
            perturbed_loss=result.perturbed_loss,
            lr=rate,
            gradient_norm=result.gradient_norm,
            epsilon_norm=result.epsilon_norm,
            cosine=result.cosine,
            step_cosine=step_cosine,
            images_per_second=round(images_per_second, 1),
        )
    _show(training, stage, result.loss, batch, images_per_second=images_per_second)


def report_batch(
    training: Training, stage: StatisticsStage, batch: int, loss: float, images_per_second: float
) -> None:
    """Show how far a statistics stage is; its one log line is that of its end."""
    _show(training, stage, loss, batch, images_per_second=images_per_second)


def report_epoch(training: Training, stage: Stage) -> None:
    """Show and log what the evaluation after an epoch found, with the clip levels."""
    batches = training.batches_of(stage)
    loss = math.nan if isinstance(stage, CalibrationStage) else training.loss_sum / batches
    training.write_log(
        "epoch",
        stage=stage.kind,
        form=training.form,
        epoch=training.position.epoch + 1,
        loss=loss,
        waited=round(training.epoch_waited, 3),
        step_seconds=training.step_seconds or None,
        **training.accuracy,
        **clip_levels(training.judged),
    )
    _show(
        training,
        stage,
        loss,
        batches,
        top1=training.accuracy.get("top1"),
        deploy_top1=training.accuracy.get("deploy_top1"),
    )


def _show(
    training: Training,
    stage: Stage,
    loss: float,
    batch: int,
    *,
    images_per_second: float = 0.0,
    top1: float | None = None,
    deploy_top1: float | None = None,
) -> None:
    position = training.position
    training.on_progress(
        Progress(
            stage=stage.kind,
            stage_number=position.stage + 1,
            stages=len(training.recipe.train.stages),
            epoch=position.epoch + 1,
            epochs=stage.epochs if isinstance(stage, DescentStage) else 1,
            batch=batch,
            batches=training.batches_of(stage),
            step=position.step,
            steps=training.steps,
            first_step=training.first_step,
            loss=loss,
            images_per_second=images_per_second,
            top1=top1,
            deploy_top1=deploy_top1,
            teacher=training.teacher_accuracy,
        )
    )
