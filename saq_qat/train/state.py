"""A training in progress: its surroundings, its network, where it stands; saving and resuming it."""

import json
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saq_qat.data.batches import steps_per_epoch
from saq_qat.data.digest import files_digest, images_digest
from saq_qat.data.open import ImageData
from saq_qat.data.record import data_record
from saq_qat.errors import ArtifactError
from saq_qat.models.build import build_model
from saq_qat.models.probe import CHANNELS, check_takes_images
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.schema import CalibrationStage, DescentStage, Recipe, Stage, StatisticsStage
from saq_qat.train.average import WeightAverage, behind_average, weights_behind
from saq_qat.train.checkpoint import Checkpoint, Form, Position, set_aside, write_checkpoint
from saq_qat.train.distributed import Processes
from saq_qat.train.files import write_whole
from saq_qat.train.forms import check_records, computed_of, load_weights, network_in_form, records_of
from saq_qat.train.log import RunLog, environment
from saq_qat.train.log_copies import open_copies
from saq_qat.train.progress import OnProgress, TeacherAccuracy
from saq_qat.train.resume import check_log, check_same_training, checkpoint_to_resume
from saq_qat.train.stop import Stop, TrainingStoppedError
from saq_qat.train.teacher import LoadedTeacher
from saq_qat.train.trained_numbers import check_trained_numbers

__all__ = ["Training", "begin_or_resume"]


@dataclass
class Training:
    """Everything the loop reads and moves on.

    Attributes:
        teacher: whose predictions the loss asks for too, if the recipe names one.
        teacher_accuracy: found once, before the first step.
        average: of the weights over the steps of this stage, if the recipe asks for one.
        loss_sum: of the epoch so far, for its mean.
        best: top-1 of the checkpoint ``best``, of this stage's epochs alone; None before the first.
        accuracy: what the last evaluation found; None for a loss that is not finite.
        first_step: where this process took the run up.
        seconds_before: that the run took up to there.
        waited: seconds that the run has waited for batches; ``epoch_waited`` of them in this epoch.
        step_seconds: of a step of this epoch, the mean of those this process made; 0 before its end.
        unloaded: tensors of optimizer and method from the checkpoint, until their stage takes them.
        behind: weights from the checkpoint whose average its model is, until their stage takes them.
    """

    recipe: Recipe
    folder: Path
    processes: Processes
    images: ImageData
    log: RunLog
    stop: Stop
    on_progress: OnProgress
    network: nn.Module
    teacher: LoadedTeacher | None = None
    plan: Plan | None = None
    teacher_accuracy: TeacherAccuracy | None = None
    form: Form = "float"
    position: Position = field(default_factory=Position)
    average: WeightAverage | None = None
    loss_sum: float = 0.0
    best: float | None = None
    accuracy: dict[str, float | None] = field(default_factory=dict)
    first_step: int = 0
    seconds_before: float = 0.0
    waited: float = 0.0
    epoch_waited: float = 0.0
    step_seconds: float = 0.0
    unloaded: dict[str, Tensor] | None = None
    behind: dict[str, Tensor] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @cached_property
    def images_sha256(self) -> str:
        """Of the images it trains and is judged on, by which a checkpoint knows them wherever they lie."""
        return images_digest(self.images)

    @cached_property
    def image_files_sha256(self) -> str | None:
        """Of what their files hold, by which a study knows whether its arms saw the same."""
        return files_digest(self.images)

    @property
    def judged(self) -> nn.Module:
        """What is evaluated and shipped: the average of the weights where there is one, or the network."""
        return self.network if self.average is None else self.average.network

    @property
    def seconds(self) -> float:
        """That the run has taken so far, in all its processes one after the other."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def batches(self) -> int:
        """Optimizer steps in an epoch."""
        return steps_per_epoch(self.images, self.recipe.train.batch_size)

    @property
    def image_shape(self) -> torch.Size:
        """(C, H, W) of what the network is given."""
        side = self.recipe.data.image_size
        return torch.Size((CHANNELS, side, side))

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run; calibration and statistics stages make none."""
        stages = self.recipe.train.stages
        return sum(s.epochs for s in stages if isinstance(s, DescentStage)) * self.batches

    @property
    def epochs_before(self) -> int:
        """Epochs of the stages before this one: no two epochs of a run see the same order of images."""
        before = self.recipe.train.stages[: self.position.stage]
        return sum(
            stage.epochs if isinstance(stage, DescentStage) else -(-self.batches_of(stage) // self.batches)
            for stage in before
        )

    def batches_of(self, stage: Stage) -> int:
        """Batches of an epoch of ``stage``; a calibration or statistics stage is one epoch."""
        if isinstance(stage, CalibrationStage):
            return 0 if self.recipe.quant is None else self.recipe.quant.calibration_batches
        return stage.batches if isinstance(stage, StatisticsStage) else self.batches

    def move(self, **changes: int) -> None:
        """Change the position."""
        self.position = replace(self.position, **changes)

    def take_up(self, checkpoint: Checkpoint) -> None:
        """Stand where a checkpoint stands, whose weights the network holds."""
        progress = checkpoint.progress
        self.form, self.position = checkpoint.form, checkpoint.position
        self.loss_sum, self.best = progress["loss_sum"], progress["best"]
        self.accuracy = dict(progress["accuracy"])
        self.first_step = checkpoint.position.step
        # Checkpoints of older versions do not know.
        self.seconds_before, self.waited = progress.get("seconds", 0.0), progress.get("waited", 0.0)
        self.unloaded = dict(checkpoint.training)
        self.behind = weights_behind(checkpoint.training)

    def begin_average(self) -> None:
        """Average the weights of the stage that begins, or that a checkpoint stands in."""
        ema = self.recipe.train.ema
        if ema is None:
            return
        self.average = WeightAverage(self.network, ema.decay)
        if self.behind:
            load_weights(self.network, self.behind, str(self.folder))
            check_trained_numbers(self.network, None, str(self.folder / "checkpoints"))
        elif (self.position.epoch, self.position.batch) != (0, 0):
            raise ArtifactError(
                f"{self.folder}: the checkpoint lacks the weights behind the average (weights/* in "
                "optimizer.safetensors), from which training goes on. Put back what training wrote, or start "
                "a new run."
            )
        self.behind = {}

    def end_average(self) -> None:
        """Go on with what was judged: the average of the stage that ends becomes the network's weights."""
        if self.average is not None:
            self.network.load_state_dict(self.average.network.state_dict())
        self.average = None

    def average_statistics(self) -> None:
        """Give every process the mean of the processes' BatchNorm statistics, and of their averages."""
        self.processes.average_statistics(self.network)
        if self.average is not None:
            self.processes.average_statistics(self.average.network)

    def save(self, name: str, training: dict[str, Tensor]) -> None:
        """Write the checkpoint ``name`` (last or best); only the first process does.

        Args:
            training: what it takes to go on; empty in a checkpoint that none goes on from.
        """
        if not self.processes.is_first:
            return
        if self.average is not None and training:
            training = {**training, **behind_average(self.network)}
        self.log.sync()
        progress: dict[str, Any] = {
            "loss_sum": self.loss_sum,
            "best": self.best,
            "accuracy": self.accuracy,
            "log_bytes": self.log.size,
            "seconds": round(self.seconds, 3),
            "waited": round(self.waited, 3),
            "teacher": self.teacher.sha256 if self.teacher is not None else None,
            "images": self.images_sha256,
            "image_files": self.image_files_sha256,
        }
        checkpoint = Checkpoint(
            self.position,
            self.form,
            self.processes.world_size,
            self.judged.state_dict(),
            training,
            progress,
            records=records_of(self.judged, self.plan, self.recipe),
            data=data_record(self.images),
            recipe=self.recipe.model_dump(mode="json"),
            computed=computed_of(self.judged),
        )
        write_checkpoint(self.folder / "checkpoints" / name, checkpoint)

    def asked_to_stop(self) -> int:
        """The signal that any process received, 0 if none did."""
        return self.processes.largest(self.stop.number)

    def stopped(self, number: int) -> TrainingStoppedError:
        """What to raise for that signal, once ``last`` is a checkpoint to go on from."""
        return TrainingStoppedError(
            f"Stopped by a signal after step {self.position.step}, with a checkpoint. "
            f"Go on with: saq-qat train --resume {self.folder}",
            number,
        )

    def write_log(self, event: str, **values: Any) -> None:
        """Append to log.jsonl; only the first process does."""
        if self.processes.is_first:
            self.log.write(event, self.position.step, values)


def begin_or_resume(
    recipe: Recipe,
    folder: Path,
    processes: Processes,
    images: ImageData,
    teacher: LoadedTeacher | None,
    stop: Stop,
    on_progress: OnProgress,
    *,
    resume: bool,
) -> Training:
    """The training at its start or, with ``resume``, at its last checkpoint; env.json tells what it runs on.

    Raises:
        RecipeError: it was started with another recipe or number of processes, or the network refuses the
            recipe's images.
        ArtifactError: there is no checkpoint to go on from, or not of this training.
        DataError: the images are less than a batch.
    """
    log = RunLog(folder / "log.jsonl")
    checkpoint = checkpoint_to_resume(folder, log) if resume else None
    batches = steps_per_epoch(images, recipe.train.batch_size)  # a refusal comes before there is a run
    if checkpoint is None:
        torch.manual_seed(recipe.seed)
        network: nn.Module = build_model(recipe.model, len(images.classes))
        check_takes_images(network, recipe.data.image_size, len(images.classes), recipe.model.name)
        plan = None
    else:
        check_same_training(checkpoint, recipe, folder, processes, images, teacher, batches=batches)
        check_log(log, checkpoint)
        network, plan = network_in_form(recipe, len(images.classes), checkpoint.form)
        records = check_records(network, plan, recipe, checkpoint)
        load_weights(network, checkpoint.model, str(folder))
        check_trained_numbers(network, records, str(checkpoint.folder or folder))
    network = network.to(processes.device)
    training = Training(
        recipe, folder, processes, images, log, stop, on_progress, network, teacher=teacher, plan=plan
    )
    if checkpoint is not None:
        training.take_up(checkpoint)
    processes.largest(0)  # from here on none reads what the first one writes
    if processes.is_first:
        _write_environment(training)
        if checkpoint is not None:
            _clear_the_way(training, checkpoint)
        log.copy_to(open_copies(folder, recipe.train.logs))
    return training


def _clear_the_way(training: Training, checkpoint: Checkpoint) -> None:
    """Drop what a killed run logged after its checkpoint, and keep a damaged one from being written over."""
    last = training.folder / "checkpoints" / "last"
    if checkpoint.folder != last and last.exists():
        set_aside(last)
    training.log.cut(checkpoint.progress["log_bytes"])


def _write_environment(training: Training) -> None:
    processes, teacher = training.processes, training.teacher
    facts = environment(processes.device, processes.world_size)
    if teacher is not None:
        facts |= {"teacher": teacher.source, "teacher_sha256": teacher.sha256}
    write_whole(training.folder / "env.json", json.dumps(facts, indent=2).encode())
