"""Biases and other codes as integers: rounding to them that lets gradients pass."""

from typing import Any, cast

import torch
from torch import Tensor

from saq_qat.quant.numerics.operators import define_operator

__all__ = ["codes_of_bias", "in_codes_of_bias", "offset_in_bias", "round_to_integer", "round_to_step"]

_BIAS_BITS = 22


def codes_of_bias(bias: Tensor, step: Tensor) -> Tensor:
    """``round(bias / step)`` in float64, half to even, with at most 22 significant bits.

    A graph for TensorRT states a bias as a float32, from which a longer code could not be read back. A
    compiler calls the same kernels: its own exponents of float64 do not compile on every machine.
    """
    if torch.compiler.is_compiling():
        return cast(Tensor, _CODES_OF_BIAS(bias, step))
    return _codes_of_bias(bias, step)


def _codes_of_bias(bias: Tensor, step: Tensor) -> Tensor:
    exact = bias.double() / step.double()
    last_bit = torch.exp2((torch.frexp(exact).exponent - _BIAS_BITS).clamp_min(0).double())
    return exact.div_(last_bit).round_().mul_(last_bit)


_CODES_OF_BIAS = define_operator(
    "codes_of_bias(Tensor bias, Tensor step) -> Tensor",
    _codes_of_bias,
    lambda bias, step: torch.empty_like(bias.double() / step.double()),
)


class _RoundToStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor) -> Tensor:
        exact = step.double()
        return (codes_of_bias(x, exact) * exact).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0], None


def round_to_step(x: Tensor, step: Tensor) -> Tensor:
    """``codes_of_bias(x, step) * step``, with the gradient of the identity; ``step`` broadcasts."""
    return cast(Tensor, _RoundToStep.apply(x, step.detach()))


class _InCodesOfBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bias: Tensor, step: Tensor) -> Tensor:
        ctx.save_for_backward(step)
        return codes_of_bias(bias, step).to(bias.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (step,) = ctx.saved_tensors
        return upstream[0] / step, None


def in_codes_of_bias(bias: Tensor, step: Tensor) -> Tensor:
    """``codes_of_bias(bias, step)`` of bias's dtype, with the gradient of ``bias / step``; both (out,)."""
    return cast(Tensor, _InCodesOfBias.apply(bias, step.detach()))


class _RoundToInteger(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return upstream[0]


def round_to_integer(x: Tensor) -> Tensor:
    """``round(x)``, half to even, with the gradient of the identity."""
    return cast(Tensor, _RoundToInteger.apply(x))


def offset_in_bias(offset: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """What a bias holds of its input's offset, float64 (out,): ``offset * sum(W)``.

    Args:
        offset: 0-dim. codes: of the weights, (out, ...). scale: value of one code, (out,).
    """
    return offset.double() * (codes.double().flatten(1).sum(1) * scale.double())
