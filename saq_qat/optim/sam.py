"""Sharpness-aware minimization of a full-precision network (paper Eq. 3 and 4; Foret et al., 2021)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from saq_qat.optim.exchange import share_gradients
from saq_qat.optim.gradients import GradientSum
from saq_qat.optim.passes import (
    Objective,
    Snapshot,
    random_state,
    running_statistics,
    same_randomness,
    statistics_put_back,
    undone_unless_kept,
)
from saq_qat.optim.perturbation import moved, scaled
from saq_qat.optim.update import StepResult, Update

__all__ = ["SamStep"]


class SamStep:
    """Updates with the gradient at w + rho g / ||g||, where w are all trainable parameters.

    Each process and each micro-batch has a perturbation of its own (m-sharpness); only the second gradient
    is shared.
    """

    def __init__(
        self, objective: Objective, parameters: Sequence[nn.Parameter], update: Update, *, rho: float
    ) -> None:
        self._objective = objective
        self._parameters = parameters
        self._update = update
        self._rho = rho
        self._buffers = Snapshot(list(objective.network.buffers()))
        self._statistics = Snapshot(running_statistics(objective.network))

    def step(self, images: Tensor, labels: Tensor) -> StepResult:
        with undone_unless_kept(self._buffers, images.device) as keep:
            result = self._step(images, labels)
            if result.finite:
                keep()
        return result

    def _step(self, images: Tensor, labels: Tensor) -> StepResult:
        self._update.begin()
        parts = self._objective.micro_batches(images, labels)
        gradient = GradientSum()
        measured = []
        for part in parts:
            state = random_state(images.device)
            loss, g = self._objective.gradients(part, self._parameters)
            epsilon, norm, length = scaled(g, self._rho)
            same_randomness(state, images.device)
            with moved(self._parameters, epsilon), statistics_put_back(self._statistics):
                perturbed_loss, of_part = self._objective.gradients(part, self._parameters, in_float32=True)
            gradient.add(of_part)
            measured.append(torch.stack([loss, perturbed_loss, norm, length]))
        loss, perturbed_loss, norm, length = torch.stack(measured).mean(dim=0)
        mean = gradient.mean(len(parts))
        share_gradients(mean)
        return self._update.apply(
            mean,
            loss=loss,
            perturbed_loss=perturbed_loss,
            gradient_norm=norm,
            epsilon_norm=length,
        )

    def state_dict(self) -> dict[str, Tensor]:
        return self._update.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._update.load_state_dict(state)
