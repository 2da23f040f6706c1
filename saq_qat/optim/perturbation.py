"""The perturbation epsilon of sharpness-aware quantization: which way, how long, and where it is applied.

The ball of radius rho lies around the quantized weights. Epsilon of a weight is written beside it, into the
layer's slot or shift; the weight itself never moves.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from saq_qat.errors import RecipeError
from saq_qat.optim.gradients import flat_norm
from saq_qat.quant.numerics.layers import QuantLayer, quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import Saq

__all__ = [
    "Ball",
    "Epsilon",
    "ball_of",
    "find_epsilon",
    "moved",
    "opened",
    "perturbed",
    "scaled",
]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
_TINY = 1e-12


@dataclass(frozen=True)
class Ball:
    """What epsilon reaches: quantized weights, and parameters that the authors' first code moved too.

    Attributes:
        layers: their weights are perturbed beside the parameter, by ``case`` and ``space`` (paper Table 1).
        parameters: moved in place for the second pass and copied back after it.
    """

    layers: tuple[QuantLayer, ...]
    parameters: tuple[nn.Parameter, ...] = ()
    case: Literal[1, 2, 3] = 3
    space: Literal["normalised", "raw"] = "normalised"


@dataclass(frozen=True)
class Epsilon:
    """A perturbation of length rho.

    Attributes:
        weights: one tensor for each layer of the ball, of its weight's shape.
        parameters: one for each further parameter of the ball.
        norm: its own length, rho unless that gradient is zero, 0-dim.
    """

    weights: list[Tensor]
    parameters: list[Tensor]
    norm: Tensor


def ball_of(network: nn.Module, method: Saq) -> Ball:
    """The ball that ``method.perturb`` describes.

    ``bias`` are the biases of quantized layers, ``norm`` the affine parameters of normalisation layers,
    ``clip_level`` the clip levels of activations. Those of weights are left out, as in the authors' code.

    Raises:
        RecipeError: the network has none of them.
    """
    layers = tuple(quant_layers(network).values())
    of_weights = {id(layer.weight_quantizer) for layer in layers}
    modules = list(network.modules())
    found: dict[str, list[nn.Parameter | None]] = {
        "bias": [layer.bias for layer in layers],
        "norm": [p for m in modules if isinstance(m, _NORMS) for p in m.parameters(recurse=False)],
        "clip_level": [m.alpha for m in modules if isinstance(m, Quantizer) and id(m) not in of_weights],
    }
    further = [
        p
        for kind, parameters in found.items()
        if kind in method.perturb
        for p in parameters
        if p is not None and p.requires_grad
    ]
    ball = Ball(layers if "weight" in method.perturb else (), tuple(further), method.case, method.case2_space)
    if not ball.layers and not ball.parameters:
        raise RecipeError(
            f"The network has nothing to perturb: method.perturb is {list(method.perturb)}, and it has "
            f"{len(layers)} quantized layers. Add 'weight' to method.perturb, or use method.kind: plain."
        )
    return ball


@contextmanager
def opened(ball: Ball) -> Iterator[list[Tensor]]:
    """Layers with zero slots, and zero shifts where epsilon is added before quantization, in this context.

    Yields the slots, one for each layer. Afterwards neither slot nor shift is left, and epsilon's memory is
    free.
    """
    try:
        if ball.case == 2:
            for layer in ball.layers:
                layer.open_shift(ball.space)
        yield [layer.open_slot() for layer in ball.layers]
    finally:
        for layer in ball.layers:
            layer.close()


@torch.no_grad()
def find_epsilon(
    ball: Ball, slots: Sequence[Tensor], further: Sequence[Tensor], rho: float | Tensor
) -> Epsilon:
    """epsilon = rho * d / (||d|| + 1e-12), one norm over the whole ball (paper Eq. 6 to 9).

    d is dL/dQ(v), the gradient of the open slots, in Case 3; dL/dv, the same inside the clip range, in
    Cases 1 and 2; and dL/dw = dL/dv / sigma in Case 2 of the raw weight.

    Args:
        slots: gradients of the slots of ``ball.layers``.
        further: gradients of ``ball.parameters``.
        rho: a number, or a 0-dim tensor on their device, whose value need not be known yet.
    """
    pairs = zip(ball.layers, slots, strict=True)
    weights = [_direction(layer, gradient, ball) for layer, gradient in pairs]
    epsilon, _, norm = scaled([*weights, *further], rho)
    count = len(weights)
    return Epsilon(epsilon[:count], epsilon[count:], norm)


def _direction(layer: QuantLayer, gradient: Tensor, ball: Ball) -> Tensor:
    if ball.case == 3:
        return gradient
    gradient = gradient * layer.clip_mask()
    return gradient / layer.weight_deviation() if ball.case == 2 and ball.space == "raw" else gradient


def scaled(directions: list[Tensor], rho: float | Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """``directions`` scaled together to length rho, their length before, and after; both 0-dim.

    Computed in the directions' own precision, float32 or float64; zero directions stay zero.
    """
    length = flat_norm(directions)
    factor = rho / (length + _TINY)
    return list(torch._foreach_mul(directions, factor)), length, length * factor


@contextmanager
def perturbed(ball: Ball, epsilon: Epsilon, *, apart: bool = False) -> Iterator[None]:
    """The network at Q(v) + epsilon (Cases 1, 3) or Q(v + epsilon) (Case 2); needs ``opened`` around it.

    The end of that ends the perturbation of the weights; further parameters are copied back at the end of
    this context.

    Args:
        apart: epsilon goes through products of its own, as ``QuantLayer.slot_apart`` says.
    """
    with torch.no_grad():
        for layer, value in zip(ball.layers, epsilon.weights, strict=True):
            place = layer.shift if ball.case == 2 else layer.slot
            if place is not None:
                place.copy_(value)
            layer.slot_apart = apart and ball.case != 2
    with moved(ball.parameters, epsilon.parameters) if ball.parameters else nullcontext():
        yield


@contextmanager
def moved(parameters: Sequence[nn.Parameter], by: Sequence[Tensor]) -> Iterator[None]:
    """Parameters plus ``by`` inside this context.

    They are copied back rather than subtracted from: subtraction rounds, and replicas with epsilons of
    their own drift apart.
    """
    with torch.no_grad():
        before = [parameter.detach().clone() for parameter in parameters]
        torch._foreach_add_(list(parameters), list(by))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(parameters), before)
