"""Ordinary training, one pass a step: the baseline, in full precision and quantized."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from saq_qat.optim.gradients import GradientSum, flat_norm
from saq_qat.optim.passes import Objective, undone_unless_kept
from saq_qat.optim.update import StepResult, Update

__all__ = ["PlainStep"]


class PlainStep:
    """Gradient descent on the mean loss; micro-batches only split the work (and what BatchNorm sees)."""

    def __init__(self, objective: Objective, parameters: Sequence[nn.Parameter], update: Update) -> None:
        self._objective = objective
        self._parameters = parameters
        self._update = update

    def step(self, images: Tensor, labels: Tensor) -> StepResult:
        with undone_unless_kept(self._objective.network, images.device) as keep:
            result = self._step(images, labels)
            if result.finite:
                keep()
        return result

    def _step(self, images: Tensor, labels: Tensor) -> StepResult:
        parts = self._objective.micro_batches(images, labels)
        gradient = GradientSum(self._parameters)
        losses = []
        for part in parts:
            with gradient.collecting():
                losses.append(self._objective.backward(part, synchronise=part.last))
        g = gradient.mean(len(parts))
        return self._update.apply(g, loss=torch.stack(losses).mean(), gradient_norm=flat_norm(g))

    def state_dict(self) -> dict[str, Tensor]:
        return self._update.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._update.load_state_dict(state)
