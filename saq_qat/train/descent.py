"""How the parameters of one stage move: optimizer, method and learning rate."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from saq_qat.optim.build import build_optimizer, build_step, learning_rate, trainable_parameters
from saq_qat.optim.passes import Objective
from saq_qat.recipe.schema import DescentStage
from saq_qat.train.checkpoint import Position
from saq_qat.train.compilation import choose_execution
from saq_qat.train.consecutive import ConsecutiveGradients
from saq_qat.train.optimizer_state import load_training_state, training_state
from saq_qat.train.reporting import is_logged
from saq_qat.train.state import Training

__all__ = ["Descent"]


class Descent:
    """Optimizer, method and compiled passes of a stage, all new at its start.

    Raises:
        RecipeError: SAQ on a network that has nothing to perturb.
    """

    def __init__(self, training: Training, stage: DescentStage) -> None:
        train, network = training.recipe.train, training.network
        self.stage = stage
        self._batches = training.batches
        self.execution = choose_execution(
            train, stage, network, training.image_shape, stage.epochs * self._batches
        )
        if self.execution.compiled:
            torch.compiler.reset()  # the programs of the stage before would stay in memory
        network.to(memory_format=self.execution.memory_format)
        training.processes.align(network)
        self.parameters = trainable_parameters(network)
        self.optimizer = build_optimizer(network, train.optimizer)
        objective = Objective(
            network,
            partial(F.cross_entropy, label_smoothing=train.label_smoothing),
            train.precision,
            train.micro_batch_size,
            None if training.teacher is None else training.teacher.distillation,
            self.execution.compiled,
        )
        self.method = build_step(objective, self.optimizer, stage.method, max_norm=train.optimizer.max_norm)
        # The other processes write no line that a gradient would have to be held for.
        watched = self.parameters.values() if training.processes.is_first else ()
        self._consecutive = ConsecutiveGradients(watched)

    def rate(self, at: Position) -> float:
        """Learning rate of the batch at a position in this stage."""
        return learning_rate(
            at.epoch * self._batches + at.batch,
            peak=self.stage.lr,
            steps=self.stage.epochs * self._batches,
            warmup=round(self.stage.warmup_epochs * self._batches),
        )

    def turn(self, batch: int, *, finite: bool) -> float | None:
        """Cosine between the gradients of the step just made, of a batch counted from 1, and the one before.

        None where the step is not logged, or either of the two was skipped.
        """
        logged = is_logged(batch, self._batches)
        after = batch % self._batches + 1
        return self._consecutive.after_step(
            finite=finite, logged=logged, next_logged=is_logged(after, self._batches)
        )

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs for the next step to be the same."""
        return training_state(self.optimizer, self.method, self.parameters)

    def resume(self, training: Training) -> None:
        """Take up the state of the checkpoint that was read, if it stands in this stage.

        Raises:
            ArtifactError: it is not what the steps of this stage leave.
        """
        at = training.position
        steps = at.epoch * self._batches + at.batch
        if training.unloaded is not None and steps:
            where = str(training.folder / "checkpoints")
            load_training_state(
                self.optimizer, self.method, self.parameters, training.unloaded, steps=steps, where=where
            )
        training.unloaded = None
