"""First values of clip levels, step sizes and offsets from a sample of what they will quantize."""

from collections.abc import Iterator
from math import gcd
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from saq_qat.quant.numerics.functional import codes, scale_of
from saq_qat.quant.numerics.grid import Grid

__all__ = ["GridParameters", "Initialisation", "initial_parameters", "least_squares"]

Initialisation = Literal["ones", "max", "mse", "least_squares"]

_FRACTIONS = 80
_PLACES = 5
_SAMPLE = 1 << 16
_CONVERGED = 1e-5
_ITERATIONS = 2000


class GridParameters(NamedTuple):
    """What places a grid: ``alpha`` (0-dim, clip level or step size), ``beta`` (0-dim offset, or None)."""

    alpha: Tensor
    beta: Tensor | None


def initial_parameters(x: Tensor, grid: Grid, method: Initialisation, *, offset: bool) -> GridParameters:
    """First parameters of ``grid`` for a sample ``x`` of any shape, in its dtype.

    - ``ones``: a clip level of 1, as in the paper (section 5).
    - ``max``: the narrowest grid that clips nothing, or nothing that it has a sign for.
    - ``mse``: the least squared error, from the best of 80 fractions of that downhill.
    - ``least_squares``: what quantized vision transformers start from, ``least_squares``.

    The last two look at about 65,536 evenly spaced elements. With an offset the first two put the smallest
    code on the smallest value; all but the last leave the offset of a tensor without negative values at 0, so
    that zero stays a level. ``alpha`` is 1 where nothing would be quantized.
    """
    x = x.detach()
    if method == "least_squares":
        step, beta = least_squares(_sample(x), grid, offset=offset)
        return GridParameters(step * grid.unit, beta)
    free = offset and bool(x.amin() < 0)
    alpha, beta = _place(x, grid, method, offset=free)
    return GridParameters(alpha, x.new_zeros(()) if offset and beta is None else beta)


def _place(x: Tensor, grid: Grid, method: Initialisation, *, offset: bool) -> GridParameters:
    reach = _reaching(x, grid, offset=offset)
    if method != "ones" and not bool(reach > 0):
        return GridParameters(x.new_ones(()), x.amin() if offset else None)
    lowest = x.amin() if offset else None
    if method == "ones":
        return _from_lowest(x.new_tensor(grid.unit / grid.maximum), grid, lowest)
    if method == "max":
        return _from_lowest(reach, grid, lowest)
    sample = _sample(x)
    starts = [
        min(candidates, key=lambda start: _squared_error(sample, grid, start))
        for candidates in _candidates(grid, reach, lowest, x.amax())
    ]
    ends = [_descend(sample, grid, start) for start in starts]
    return min(ends, key=lambda end: _squared_error(sample, grid, end))


def _sample(x: Tensor) -> Tensor:
    """Evenly spaced elements; their distance has no factor in common with the number of elements, so that
    they visit every row, column and channel alike."""
    flat = x.detach().reshape(-1)
    distance = max(1, flat.numel() // _SAMPLE)
    while gcd(distance, flat.numel()) > 1:
        distance += 1
    return flat[::distance].contiguous()


def _reaching(x: Tensor, grid: Grid, *, offset: bool) -> Tensor:
    """alpha of the narrowest grid that clips nothing; without an offset, nothing that it has a sign for."""
    if offset:
        return (x.amax() - x.amin()) * (grid.unit / (grid.maximum - grid.minimum))
    return (x.abs() if grid.signed else x).amax() * (grid.unit / grid.maximum)


def _from_lowest(alpha: Tensor, grid: Grid, lowest: Tensor | None) -> GridParameters:
    """The grid of ``alpha`` whose smallest code has the value ``lowest``, or that has no offset."""
    return GridParameters(
        alpha, None if lowest is None else lowest - scale_of(alpha, grid.unit) * grid.minimum
    )


def _candidates(
    grid: Grid, reach: Tensor, lowest: Tensor | None, highest: Tensor
) -> Iterator[list[GridParameters]]:
    """Fractions of ``reach``; with an offset at evenly spaced places from the lowest to the highest value."""
    fractions = [k / _FRACTIONS for k in range(1, _FRACTIONS + 1)]
    if lowest is None:
        yield [GridParameters(reach * fraction, None) for fraction in fractions]
        return
    free = highest - lowest
    for place in range(_PLACES):
        left = place / (_PLACES - 1)
        yield [
            _from_lowest(reach * fraction, grid, lowest + free * ((1 - fraction) * left))
            for fraction in fractions[1::2]
        ]


def _squared_error(x: Tensor, grid: Grid, parameters: GridParameters) -> Tensor:
    scale = scale_of(parameters.alpha, grid.unit)
    values = codes(x, scale, grid, parameters.beta).mul_(scale)
    if parameters.beta is not None:
        values.add_(parameters.beta)
    return values.sub_(x).square_().mean()


def _descend(x: Tensor, grid: Grid, start: GridParameters) -> GridParameters:
    """Alternate between the codes of a grid and the regression of ``x`` on codes, which never raises
    the squared error, until alpha moves by less than 1e-5 of itself."""
    alpha, beta = start
    for _ in range(_ITERATIONS):
        code = codes(x, scale_of(alpha, grid.unit), grid, beta)
        of_code, of_x = (None, None) if beta is None else (code.mean(), x.mean())
        centred = code if of_code is None else code - of_code
        energy = torch.dot(centred, centred)
        if not bool(energy > 0):
            break
        step = torch.dot(x if of_x is None else x - of_x, centred) / energy
        previous, alpha = alpha, step * grid.unit
        beta = None if of_x is None or of_code is None else of_x - step * of_code
        if bool((alpha - previous).abs() < _CONVERGED * alpha.abs()):
            break
    return GridParameters(alpha, beta)


def least_squares(x: Tensor, grid: Grid, *, offset: bool) -> tuple[Tensor, Tensor | None]:
    """LSQ's step size and LSQ+'s offset as quantized vision transformers initialise them.

    From ``beta = min(x)`` and ``step = max|x - beta| / maximum``, codes alternate with
    ``step = <x - beta, code> / <code, code>`` and ``beta = mean(x - step * code)``, both computed from the
    step and offset that gave the codes, until the step moves by less than 1e-5 of itself. With an offset on a
    signed grid the start leaves the negative codes without use, and so may the end: ``mse`` then has down to
    a quarter of the squared error.

    Source: the quantizers of Q-ViT (Li et al., 2022), held by ``tests/golden``.

    Returns:
        step (0-dim), 1 where nothing would be quantized, and offset (0-dim, or None).
    """
    x = x.detach().reshape(-1)
    beta = x.amin() if offset else x.new_zeros(())
    step = (x - beta).abs().amax() / grid.maximum
    if not bool(step > 0):
        return x.new_ones(()), beta if offset else None
    for _ in range(_ITERATIONS):
        centred = x - beta
        code = codes(centred, step, grid)
        energy = torch.dot(code, code)
        if not bool(energy > 0):
            break
        previous, step = step, torch.dot(centred, code) / energy
        if offset:
            beta = (x - previous * code).mean()
        if bool((step - previous).abs() < _CONVERGED * step):
            break
    return step, beta if offset else None
