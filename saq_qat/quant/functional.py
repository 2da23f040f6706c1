"""The arithmetic of quantization as pure functions on tensors: codes, fake-quant and its gradients.

One function computes codes, for training, deploy view and export alike, so that codes are compared and never derived
again from floats.
"""

from typing import Any

import torch
from torch import Tensor

from saq_qat.quant.grid import Grid

__all__ = ["ALPHA_FLOOR", "clip_bounds", "clip_mask", "codes", "fake_quantize", "pass_inside", "round_to_step", "scale_of"]

ALPHA_FLOOR = 1e-6
"""Smallest clip level in use; a learned one that crosses zero counts by its magnitude (the authors' code takes |alpha|)."""


def magnitude(alpha: Tensor) -> Tensor:
    """|alpha|, kept above ``ALPHA_FLOOR`` so that a scale is never zero."""
    return alpha.detach().abs().clamp_min(ALPHA_FLOOR)


def scale_of(alpha: Tensor, unit: int) -> Tensor:
    """The scale that is exported: ``|alpha| / unit`` in alpha's own dtype, 0-dim."""
    return magnitude(alpha) / unit


def codes(x: Tensor, scale: Tensor, grid: Grid, offset: Tensor | None = None) -> Tensor:
    """Integer codes of ``x`` as floats of its dtype, any shape; ties go to the even integer as in QuantizeLinear.

    ``clip(round((x - offset) / scale), minimum, maximum)``; on the odd grid ``clip(2 round((x / scale + n) / 2) - n)``.
    """
    code = x.div(scale) if offset is None else x.sub(offset).div_(scale)
    if grid.step == 2:
        code = code.add_(grid.unit).mul_(0.5).round_().mul_(2).sub_(grid.unit)
    else:
        code = code.round_()
    return code.clamp_(grid.minimum, grid.maximum)


def clip_bounds(alpha: Tensor, grid: Grid, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Smallest and largest value that passes the gradient, both included (paper Eq. 10); exactly +-alpha at the clip level."""
    a = magnitude(alpha)
    lower, upper = a * (grid.minimum / grid.unit), a * (grid.maximum / grid.unit)
    return (lower, upper) if offset is None else (lower + offset, upper + offset)


def clip_mask(x: Tensor, alpha: Tensor, grid: Grid, offset: Tensor | None = None) -> Tensor:
    """Bool tensor of ``x``'s shape: where the straight-through gradient passes.

    Written as comparisons because the gradient of ``clamp`` at its bounds differs between torch versions.
    """
    lower, upper = clip_bounds(alpha, grid, offset)
    return (x >= lower) & (x <= upper)


def pass_inside(grad: Tensor, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """``grad`` where ``lower <= x <= upper``, else 0.

    On the CPU hardtanh's backward kernel does this in one pass, ten times as fast as two comparisons and a select; its
    bounds are exclusive, so they move to the neighbouring floats.
    """
    if x.device.type != "cpu":
        return torch.where((x >= lower) & (x <= upper), grad, grad.new_zeros(()))
    below = torch.nextafter(lower, torch.full_like(lower, -torch.inf)).item()
    above = torch.nextafter(upper, torch.full_like(upper, torch.inf)).item()
    return torch.ops.aten.hardtanh_backward(grad, x, below, above)


class _FakeQuantize(torch.autograd.Function):
    """Saves its input, its output and the parameters; the rounding error comes from the two tensors' difference."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, alpha: Tensor, beta: Tensor | None, grid: Grid, gradient_scale: float
    ) -> Tensor:
        scale = scale_of(alpha, grid.unit)
        out = codes(x, scale, grid, beta).mul_(scale)
        if beta is not None:
            out = out.add_(beta)
        ctx.save_for_backward(x, out, alpha, beta)
        ctx.grid, ctx.gradient_scale = grid, gradient_scale
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = upstream
        x, out, alpha, beta = ctx.saved_tensors
        grad_x = pass_inside(grad, x, *clip_bounds(alpha, ctx.grid, beta))
        grad_alpha = grad_beta = None
        if any(ctx.needs_input_grad[1:3]):
            clipped = grad - grad_x
            # sum G (out - M x) without subtracting two large sums: rounding errors inside, bounds outside
            error = _inner(grad, out - x) + _inner(clipped, x if beta is None else x - beta)
            grad_alpha = error * (ctx.gradient_scale * alpha.detach().sign()) / magnitude(alpha)
            grad_beta = None if beta is None else clipped.sum()
        return grad_x, grad_alpha, grad_beta, None, None


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1))


def fake_quantize(
    x: Tensor, alpha: Tensor, grid: Grid, *, beta: Tensor | None = None, gradient_scale: float = 1.0
) -> Tensor:
    """Project ``x`` (any shape, float32 or float64) on ``grid``; straight-through backward.

    With upstream G and mask M = [lower <= x <= upper]: dx = G M; dalpha = gradient_scale * sign(alpha) / unit
    * sum G (code - M (x - beta) / scale), so the rounding error counts inside and the bound outside; dbeta = sum G (1 - M).
    For a clip level this is the gradient of APoT's and the authors' quantizer, for a step size LSQ's and LSQ+'s.

    Args:
        alpha: 0-dim, clip level or step size; its magnitude counts.
        beta: 0-dim offset of LSQ+, or None.
        gradient_scale: LSQ's 1 / sqrt(numel * maximum); 1 for clip levels.
    """
    return _FakeQuantize.apply(x, alpha, beta, grid, gradient_scale)  # type: ignore[no-any-return,no-untyped-call]


class _RoundToStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor) -> Tensor:
        return x.div(step).round_().mul_(step)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0], None


def round_to_step(x: Tensor, step: Tensor) -> Tensor:
    """``round(x / step) * step`` with the gradient of the identity; ``step`` broadcasts and gets no gradient."""
    return _RoundToStep.apply(x, step.detach())  # type: ignore[no-any-return,no-untyped-call]
