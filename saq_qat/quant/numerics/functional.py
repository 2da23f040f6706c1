"""The arithmetic of quantization as pure functions on tensors: codes, fake-quant and its gradients.

One function computes codes, for training, deploy view and export alike, so that codes are compared and never
derived again from floats.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from saq_qat.quant.numerics.grid import Grid

__all__ = [
    "ALPHA_FLOOR",
    "STEP_FLOOR",
    "at_least",
    "clip_bounds",
    "clip_mask",
    "codes",
    "fake_quantize",
    "pass_inside",
    "scale_of",
    "total",
    "value_of_zero",
    "zero_level",
]

ALPHA_FLOOR = 1e-6
"""Smallest clip level in use; one that crosses zero counts by its magnitude (the authors' code: |alpha|)."""

STEP_FLOOR = 1e-4
"""Smallest step size in use; a smaller or negative one counts as this (the quantizers of Q-ViT)."""


def _magnitude(alpha: Tensor) -> Tensor:
    return alpha.detach().abs().clamp_min(ALPHA_FLOOR)


def scale_of(alpha: Tensor, unit: int) -> Tensor:
    """The scale that is exported: ``max(|alpha|, ALPHA_FLOOR) / unit``, 0-dim of alpha's dtype."""
    return _divided(_magnitude(alpha), unit)


def _divided(magnitude: Tensor, unit: int) -> Tensor:
    """``magnitude / unit``, rounded once, on every device.

    GPUs multiply by the reciprocal of a number instead, which in float32 is another scale. In float64 that is
    close enough to round to the quotient: no float32 over a whole number is nearer to a tie than that.
    """
    return (magnitude.double() / unit).to(magnitude.dtype)


def zero_level(scale: Tensor, grid: Grid, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Code that 0 gets on a grid with an offset, and its value, which zero padding then has; both 0-dim.

    ``z = clip(round(-offset / scale), minimum, maximum)`` as a float, and ``offset + scale * z``: at most
    half a step from 0, or the bound of the grid that is next to 0 where the grid does not reach it.
    """
    code = torch.round(-offset / scale).clamp_(grid.minimum, grid.maximum)
    return code, offset + scale * code


def codes(
    x: Tensor,
    scale: Tensor,
    grid: Grid,
    offset: Tensor | None = None,
    *,
    counts_from_zero: bool = False,
) -> Tensor:
    """Integer codes of ``x`` as floats of its dtype, any shape; ties go to the even integer as in
    QuantizeLinear.

    ``clip(round((x - offset) / scale), minimum, maximum)``; on the odd grid, where ``round`` counts the steps
    of two from the minimum -n, ``clip(2 round((x / scale + n) / 2) - n, -n, n)``. Counted from zero, with
    ``(z, r) = zero_level(scale, grid, offset)``: ``clip(round((x - r) / scale), minimum - z, maximum - z)``.
    """
    zero = None
    if counts_from_zero and offset is not None:
        zero, offset = zero_level(scale, grid, offset)
    steps = _steps(x, scale, grid, offset, zero)
    return steps if grid.step == 1 else steps.mul_(grid.step)


def _steps(x: Tensor, scale: Tensor, grid: Grid, offset: Tensor | None, zero: Tensor | None = None) -> Tensor:
    """``codes / grid.step``: powers of two move through the formula exactly, and save passes over memory."""
    step = scale * grid.step
    steps = x.div(step) if offset is None else x.sub(offset).div_(step)
    if zero is not None:  # twice as fast as bounds in tensors, and no number leaves the device
        return steps.round_().add_(zero).clamp_(grid.minimum, grid.maximum).sub_(zero)
    if grid.step == 1:
        return steps.round_().clamp_(grid.minimum, grid.maximum)
    half = grid.unit / 2
    return steps.add_(half).round_().clamp_(0, grid.unit).sub_(half)


def clip_bounds(alpha: Tensor, grid: Grid, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Smallest and largest value that passes the gradient, both included (paper Eq. 10).

    They are exactly -alpha and alpha where the codes of the grid reach from -unit to unit.
    """
    return _bounds(_magnitude(alpha), grid, offset)


def _bounds(magnitude: Tensor, grid: Grid, offset: Tensor | None) -> tuple[Tensor, Tensor]:
    lower, upper = magnitude * (grid.minimum / grid.unit), magnitude * (grid.maximum / grid.unit)
    return (lower, upper) if offset is None else (lower + offset, upper + offset)


def clip_mask(x: Tensor, alpha: Tensor, grid: Grid, offset: Tensor | None = None) -> Tensor:
    """Bool tensor of ``x``'s shape: where the straight-through gradient passes.

    Written as comparisons because the gradient of ``clamp`` at its bounds differs between torch versions.
    """
    lower, upper = clip_bounds(alpha, grid, offset)
    return (x >= lower) & (x <= upper)


def pass_inside(grad: Tensor, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """``grad`` where ``lower <= x <= upper``, else 0.

    In eager mode on the CPU hardtanh's backward kernel does this in one pass, ten times as fast as two
    comparisons and a select; its bounds are exclusive, so they move to the neighbouring floats. A compiler
    fuses the comparisons with what stands around them, and could not follow the bounds out of the tensors.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return torch.where((x >= lower) & (x <= upper), grad, grad.new_zeros(()))
    below, above = _next_float(lower, -np.inf), _next_float(upper, np.inf)
    return cast(Tensor, torch.ops.aten.hardtanh_backward(grad, x, below, above))


def _next_float(bound: Tensor, towards: float) -> float:
    """The neighbour of ``bound`` among the floats of its dtype; NumPy's is cheap on one number."""
    value = bound.detach().numpy()
    return float(np.nextafter(value, value.dtype.type(towards)))


class _FakeQuantize(torch.autograd.Function):
    """Saves what its neighbours keep alive anyway: its input, its output and the parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        alpha: Tensor,
        beta: Tensor | None,
        grid: Grid,
        gradient_scale: float,
        counts_from_zero: bool,
    ) -> Tensor:
        magnitude = _magnitude(alpha)
        scale = _divided(magnitude, grid.unit)
        zero, offset = (
            zero_level(scale, grid, beta) if counts_from_zero and beta is not None else (None, beta)
        )
        steps, step = _steps(x, scale, grid, offset, zero), scale * grid.step
        # what is returned is made new: torch 2.11 compiles no gradient for what was changed in place last
        out = steps * step if offset is None else steps.mul_(step) + offset
        ctx.save_for_backward(x, out, alpha, beta, magnitude)
        ctx.grid, ctx.gradient_scale = grid, gradient_scale
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = upstream
        x, out, alpha, beta, magnitude = ctx.saved_tensors
        grad_x = pass_inside(grad, x, *_bounds(magnitude, ctx.grid, beta))
        grad_alpha = grad_beta = None
        if any(ctx.needs_input_grad[1:3]):
            # differences before sums, which would cancel; an infinite x makes it NaN, so that it is noticed
            error = total((grad * out).addcmul_(grad_x, x, value=-1))
            if beta is not None:
                grad_beta = total(grad - grad_x)  # and not of sums: few elements of many are clipped
                error = error - beta * grad_beta
            grad_alpha = error * ctx.gradient_scale * alpha.sign() / magnitude
        return grad_x, grad_alpha, grad_beta, None, None, None


def total(x: Tensor) -> Tensor:
    """Sum of all elements, 0-dim; compiled, of each channel, or of each row, first.

    A compiler walks a sum over all axes in the order of the axes, across the memory of a channels_last
    tensor; one that leaves the channels is computed along it. Its long float32 sums would be off by several
    1e-6 of the length of what they add up, where eager ones add pairwise: they are in float64.
    """
    if not torch.compiler.is_compiling() or x.dim() < 2:
        return x.sum()
    if x.dim() == 4:
        return x.sum(dim=(0, 2, 3), dtype=torch.float64).sum().to(x.dtype)
    return x.sum(dim=-1).sum(dtype=torch.float64).to(x.dtype)


def fake_quantize(
    x: Tensor,
    alpha: Tensor,
    grid: Grid,
    *,
    beta: Tensor | None = None,
    gradient_scale: float = 1.0,
    counts_from_zero: bool = False,
) -> Tensor:
    """Project ``x`` (any shape, float32 or float64) on ``grid``; straight-through backward.

    With upstream G and mask M = [lower <= x <= upper]: dx = G M; dalpha = gradient_scale * sign(alpha) / unit
    * sum G (code - M (x - beta) / scale), so the rounding error counts inside and the bound outside;
    dbeta = sum G (1 - M). For a clip level this is the gradient of APoT's and the authors' quantizer, for a
    step size LSQ's and LSQ+'s.

    Args:
        alpha: 0-dim, clip level or step size; its magnitude counts.
        beta: 0-dim offset, or None.
        gradient_scale: LSQ's 1 / sqrt(numel * maximum); 1 for clip levels.
        counts_from_zero: codes are those that ``codes`` counts from zero's; the same grid and gradients.
    """
    return cast(Tensor, _FakeQuantize.apply(x, alpha, beta, grid, gradient_scale, counts_from_zero))


class _AtLeast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, floor: float) -> Tensor:
        return x.clamp_min(floor)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0], None


def at_least(x: Tensor, floor: float) -> Tensor:
    """``max(x, floor)`` with the gradient of the identity, so that a step below its floor can leave it."""
    return cast(Tensor, _AtLeast.apply(x, floor))


class _ValueOfZero(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alpha: Tensor, beta: Tensor, grid: Grid, gradient_scale: float) -> Tensor:
        _, value = zero_level(scale_of(alpha, grid.unit), grid, beta)
        ctx.save_for_backward(alpha, beta, value)
        ctx.grid, ctx.gradient_scale = grid, gradient_scale
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        alpha, beta, value = ctx.saved_tensors
        grad_beta = upstream[0] * ~clip_mask(torch.zeros_like(beta), alpha, ctx.grid, beta)
        error = upstream[0] * value - beta * grad_beta
        return error * ctx.gradient_scale * alpha.sign() / _magnitude(alpha), grad_beta, None, None


def value_of_zero(alpha: Tensor, beta: Tensor, grid: Grid, *, gradient_scale: float = 1.0) -> Tensor:
    """The value, 0-dim, that zero padding has behind a quantizer whose codes count from zero's: Q(0).

    Exactly that of ``zero_level``, with the gradients that ``fake_quantize`` gives to an element of value 0.
    """
    return cast(Tensor, _ValueOfZero.apply(alpha, beta, grid, gradient_scale))
