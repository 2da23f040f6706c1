"""How much the loss rises within the ball of sharpness-aware quantization."""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.analysis.study.quantities import Sharpness
from saq_qat.optim.gradients import flat_norm
from saq_qat.optim.perturbation import Ball, find_epsilon, opened, perturbed
from saq_qat.quant.numerics.layers import quant_layers

__all__ = ["sharpness"]

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""The same batches of images (N, C, H, W) and labels (N,) each time it is called."""


def sharpness(network: nn.Module, batches: Batches, rho: float) -> Sharpness | None:
    """L(Q(w) + epsilon) - L(Q(w)), epsilon of length ``rho`` along the gradient over all batches.

    The network is in evaluation mode, and the perturbation goes through its slots (paper Eq. 6 to 9, Case 3).
    None for a network without quantized layers.
    """
    layers = tuple(quant_layers(network).values())
    if not layers:
        return None
    network.eval()
    ball = Ball(layers)
    with opened(ball) as slots:
        loss, gradient, images = _gradient(network, batches(), slots)
        epsilon = find_epsilon(ball, gradient, (), rho)
        with perturbed(ball, epsilon):
            there = _loss(network, batches())
    weights = [layer.projected_weight().detach() for layer in layers]
    return Sharpness(loss, there - loss, rho, float(flat_norm(weights)), images)


def _gradient(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], slots: Sequence[Tensor]
) -> tuple[float, list[Tensor], int]:
    """Mean loss, its gradient with respect to the slots, and how many images there were."""
    total, count = 0.0, 0
    sums = [torch.zeros_like(slot.detach()) for slot in slots]
    for images, labels in batches:
        loss = F.cross_entropy(network(images), labels, reduction="sum")
        torch._foreach_add_(sums, list(torch.autograd.grad(loss, list(slots))))
        total += float(loss.detach())
        count += len(labels)
    torch._foreach_div_(sums, count)
    return total / count, sums, count


@torch.no_grad()
def _loss(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    total, count = 0.0, 0
    for images, labels in batches:
        total += float(F.cross_entropy(network(images), labels, reduction="sum"))
        count += len(labels)
    return total / count
