"""First values of clip levels, step sizes and offsets from a sample of what they will quantize."""

from typing import Literal

import torch
from torch import Tensor

from saq_qat.quant.functional import codes, scale_of
from saq_qat.quant.grid import Grid

__all__ = ["Initialisation", "clip_level", "least_squares", "reaching"]

Initialisation = Literal["ones", "max", "mse"]

_CANDIDATES = 80
_SAMPLE = 1 << 16
_LEAST_SQUARES_STEPS = 500


def clip_level(x: Tensor, grid: Grid, method: Initialisation) -> Tensor:
    """Initial clip level for a sample ``x`` of any shape, 0-dim of its dtype.

    ``ones``: 1, as in the paper (section 5). ``max``: the largest magnitude that the grid has a sign for.
    ``mse``: of 80 fractions of that, the one with the least squared error on a sample of about 65,536 evenly
    spaced elements. The clip level is the value of the code ``grid.unit``, and stays 1 where nothing would be
    quantized.
    """
    if method == "ones":
        return x.new_ones(())
    flat = x.detach().reshape(-1)
    sample = flat[:: max(1, flat.numel() // _SAMPLE)]
    reach = (sample.abs() if grid.signed else sample).amax()
    if not bool(reach > 0):
        return x.new_ones(())
    if method == "max":
        return reach
    candidates = reach * torch.arange(1, _CANDIDATES + 1, dtype=x.dtype, device=x.device) / _CANDIDATES
    errors = torch.stack([_squared_error(sample, candidate, grid) for candidate in candidates])
    return candidates[errors.argmin()]


def _squared_error(x: Tensor, alpha: Tensor, grid: Grid) -> Tensor:
    scale = scale_of(alpha, grid.unit)
    return (codes(x, scale, grid).mul_(scale) - x).square().mean()


def least_squares(x: Tensor, grid: Grid, *, offset: bool) -> tuple[Tensor, Tensor | None]:
    """LSQ's step size, and LSQ+'s offset, by alternating least squares: codes for a step, then the step for
    codes.

    Starts from the grid that just reaches all of ``x``, and stops when the step moves by less than 1e-5 of
    itself. Source: the initialisation of fixed-point vision transformers (Q-ViT; paper section 5), with step
    and offset of an iteration solved together rather than in turn, which ends in a smaller error on signed
    grids.

    Returns:
        step (0-dim) and offset (0-dim, or None).
    """
    x = x.detach()
    step, beta = reaching(x, grid, offset=offset)
    if not bool(step > 0):
        return x.new_ones(()), beta if offset else None
    for _ in range(_LEAST_SQUARES_STEPS):
        code = codes(x, step, grid, beta)
        mean_code, mean_x = (code.mean(), x.mean()) if offset else (x.new_zeros(()), x.new_zeros(()))
        centred = code - mean_code
        energy = centred.square().sum()
        if not bool(energy > 0):
            break
        previous, step = step, ((x - mean_x) * centred).sum() / energy
        beta = mean_x - step * mean_code
        if bool((step - previous).abs() < 1e-5 * previous.abs()):
            break
    return step, beta if offset else None


def reaching(x: Tensor, grid: Grid, *, offset: bool) -> tuple[Tensor, Tensor]:
    """Step and offset of the narrowest grid that clips no element; without offset, none of the largest."""
    if not offset:
        return x.abs().amax() / grid.maximum, x.new_zeros(())
    step = (x.amax() - x.amin()) / (grid.maximum - grid.minimum)
    return step, x.amin() - step * grid.minimum
