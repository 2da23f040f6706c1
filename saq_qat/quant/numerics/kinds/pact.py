"""PACT: activations clipped at a learned level that learns from what it clips alone, and that decays.

Source: J. Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks", arXiv
1805.06085, Eq. 1 to 3, and its regulariser of alpha, with the coefficient of the weights'. A row of Table 2
of the SAQ paper. Signed inputs, which PACT does not know, are clipped on both sides.
"""

from typing import Any, cast

import torch
from torch import Tensor

from saq_qat.quant.numerics.functional import ALPHA_FLOOR, clip_mask, fake_quantize, total
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.kinds.kind import Kind
from saq_qat.quant.numerics.kinds.symmetric import clipped_grid

__all__ = ["PACT", "fake_quantize_pact"]


class _Clipping(torch.autograd.Function):
    """The gradient of alpha that ``fake_quantize`` leaves out here: that of the clipped values alone."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, alpha: Tensor, offset: Tensor | None, grid: Grid) -> Tensor:
        ctx.save_for_backward(out, x, alpha, offset)
        ctx.grid = grid
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = upstream
        out, x, alpha, offset = ctx.saved_tensors
        clipped = ~clip_mask(x, alpha, ctx.grid, offset)
        bound = out if offset is None else out - offset
        grad_alpha = total(grad * clipped * bound) * alpha.sign() / alpha.abs().clamp_min(ALPHA_FLOOR)
        return grad, None, grad_alpha, None, None


def fake_quantize_pact(
    x: Tensor,
    alpha: Tensor,
    grid: Grid,
    *,
    beta: Tensor | None = None,
    gradient_scale: float = 1.0,
    counts_from_zero: bool = False,
) -> Tensor:
    """Values on ``grid`` as ``fake_quantize`` gives them, with PACT's gradient: dL/dalpha = sum of G over the
    elements that are clipped, with the sign of their bound (Eq. 3); dL/dx and dL/dbeta are the same.

    Args:
        x: any shape. alpha: 0-dim, clip level. beta: 0-dim offset, or None.
    """
    out = fake_quantize(
        x, alpha.detach(), grid, beta=beta, gradient_scale=gradient_scale, counts_from_zero=counts_from_zero
    )
    offset = None if beta is None else beta.detach()
    return cast(Tensor, _Clipping.apply(out, x.detach(), alpha, offset, grid))


PACT = Kind("pact", activation_grid=clipped_grid, decays=True, fake_quantize=fake_quantize_pact)
