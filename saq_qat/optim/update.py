"""The end of every step: report its numbers, apply the gradient, or skip it when a number is not finite."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim import Optimizer

from saq_qat.errors import DivergedError
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema.base import LARGEST

__all__ = ["SKIPPED", "StepResult", "TrainingStep", "Update"]

SKIPPED = "skipped_in_a_row"
"""In the state of every method: how many steps were skipped just before."""


@dataclass(frozen=True)
class StepResult:
    """What one step measured, on this process; means over its micro-batches.

    Attributes:
        loss: of the unperturbed network.
        perturbed_loss: of the perturbed one; None if there was no second pass.
        gradient_norm: ||g||; None where only g_s + g is known (see ``SaqStep``).
        epsilon_norm: length of the perturbation.
        cosine: of the angle between g_s and g (paper Fig. 4).
        finite: False if the step was skipped.
    """

    loss: float
    perturbed_loss: float | None
    gradient_norm: float | None
    epsilon_norm: float | None
    cosine: float | None
    finite: bool


class TrainingStep(Protocol):
    """A strategy: one optimizer step on one batch, and what must be saved to go on exactly."""

    def step(self, images: Tensor, labels: Tensor) -> StepResult:
        """Train on images (N, C, H, W) and labels (N,) or (N, classes).

        Raises DivergedError after too many skipped steps.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class Update:
    """Applies a gradient with an optimizer, unless anything in the step is infinite or NaN on any process.

    A skipped step leaves parameters and optimizer as they were. ``limit`` of them in a row end the training.

    Args:
        names: of the parameters, for the message.
        quantizers: whose steps settle, now and after each step of the optimizer.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        *,
        max_norm: float | None = None,
        limit: int = 10,
        names: Sequence[str] = (),
        quantizers: Sequence[Quantizer] = (),
    ) -> None:
        self._optimizer = optimizer
        self._parameters = parameters
        self._max_norm = max_norm
        self._limit = limit
        self._names = names
        self._quantizers = quantizers
        self._skipped_in_a_row = 0
        self._settle()

    def begin(self) -> None:
        """Let go of the gradients of the step before, whose memory this one needs."""
        for parameter in self._parameters:
            parameter.grad = None

    def apply(
        self,
        gradients: Sequence[Tensor],
        *,
        loss: Tensor,
        perturbed_loss: Tensor | None = None,
        gradient_norm: Tensor | None = None,
        epsilon_norm: Tensor | None = None,
        cosine: Tensor | None = None,
    ) -> StepResult:
        """Set ``.grad`` to ``gradients``, clip it, step the optimizer.

        All numbers are 0-dim and leave the device together: a step waits for it once.

        Raises:
            DivergedError: ``limit`` steps in a row were not finite.
        """
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        total = torch.nn.utils.get_total_norm(list(gradients))
        optional = (perturbed_loss, gradient_norm, epsilon_norm, cosine)
        values = torch.stack(
            [(total if value is None else value).double() for value in (loss, total, *optional)]
        )
        numbers: list[float] = values.tolist()
        finite = self._on_all_processes(all(map(math.isfinite, numbers)), values.device)
        shown = [
            None if value is None else number for value, number in zip(optional, numbers[2:], strict=True)
        ]
        if finite:
            if self._max_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(self._parameters, self._max_norm, total)
            self._optimizer.step()
            self._settle()
        self._count(finite, numbers[0], gradients)
        return StepResult(numbers[0], shown[0], shown[1], shown[2], shown[3], finite)

    def _settle(self) -> None:
        for quantizer in self._quantizers:
            quantizer.settle()

    @staticmethod
    def _on_all_processes(finite: bool, device: torch.device) -> bool:
        if not torch.distributed.is_initialized():
            return finite
        flag = torch.tensor(float(finite), device=device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
        return flag.item() == 1.0

    def _count(self, finite: bool, loss: float, gradients: Sequence[Tensor]) -> None:
        self._skipped_in_a_row = 0 if finite else self._skipped_in_a_row + 1
        if finite:
            return
        wrong = [index for index, gradient in enumerate(gradients) if not bool(gradient.isfinite().all())]
        self.begin()
        if self._skipped_in_a_row >= self._limit:
            named = f", first in {self._names[wrong[0]]}" if wrong and self._names else ""
            raise DivergedError(
                f"{self._limit} steps in a row had a loss or gradient that is not finite (last loss {loss}"
                f"{named}); none was applied. {self._fix()}"
            )

    def _fix(self) -> str:
        """By the likely cause: weights that were spoilt before these steps, or the steps themselves."""
        for index, parameter in enumerate(self._parameters):
            largest = float(parameter.detach().abs().max()) if parameter.numel() else 0.0
            if largest > LARGEST:
                name = self._names[index] if self._names else f"parameter {index}"
                return (
                    f"Before them {name} held {largest:.3g}, too large to go on from: the network was spoilt "
                    "earlier. Put an earlier checkpoint back, or train anew, with a lower learning rate "
                    "(train.stages.*.lr) if no other program wrote it."
                )
        return (
            "Lower the learning rate (train.stages.*.lr), lengthen the warm-up, set "
            "train.optimizer.max_norm, or look for broken images."
        )

    def state_dict(self) -> dict[str, Tensor]:
        """How many steps in a row were skipped, 0-dim int64."""
        return {SKIPPED: torch.tensor(self._skipped_in_a_row)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._skipped_in_a_row = int(state[SKIPPED])
