"""Ordinary training, one pass a step: the baseline, in full precision and quantized."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from saq_qat.optim.exchange import share_gradients
from saq_qat.optim.gradients import GradientSum, flat_norm
from saq_qat.optim.passes import Objective, Snapshot, undone_unless_kept
from saq_qat.optim.update import StepResult, Update

__all__ = ["PlainStep"]


class PlainStep:
    """Gradient descent on the mean loss; micro-batches only split the work (and what BatchNorm sees)."""

    def __init__(self, objective: Objective, parameters: Sequence[nn.Parameter], update: Update) -> None:
        self._objective = objective
        self._parameters = parameters
        self._update = update
        self._buffers = Snapshot(list(objective.network.buffers()))

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
        losses = []
        for part in parts:
            loss, of_part = self._objective.gradients(part, self._parameters)
            gradient.add(of_part)
            losses.append(loss)
        g = gradient.mean(len(parts))
        share_gradients(g)
        return self._update.apply(g, loss=torch.stack(losses).mean(), gradient_norm=flat_norm(g))

    def state_dict(self) -> dict[str, Tensor]:
        return self._update.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._update.load_state_dict(state)
