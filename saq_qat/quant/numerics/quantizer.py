"""A quantizer: a grid and the parameters that place it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from saq_qat.quant.numerics.functional import (
    STEP_FLOOR,
    at_least,
    clip_bounds,
    clip_mask,
    codes,
    scale_of,
    value_of_zero,
    zero_level,
)
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.initialise import GridParameters, Initialisation, initial_parameters
from saq_qat.quant.numerics.kernel_rounding import rounded_as_a_sum_of_codes, rounded_as_means
from saq_qat.quant.numerics.kinds.kind import Kind
from saq_qat.quant.numerics.kinds.saq import SAQ

__all__ = ["Added", "Averaged", "Quantizer", "observing"]


class Quantizer(nn.Module):
    """Fake-quantizes a tensor of any shape on ``grid``.

    A clip level counts by its magnitude; a step size below ``STEP_FLOOR`` counts as that, and ``settle`` sets
    it to that.

    Attributes:
        alpha: 0-dim parameter; the clip level or the step size, as ``kind.learns`` says.
        beta: 0-dim parameter, the offset that a grid of either kind may have; else None.
        counts_from_zero: codes are counted from the code of zero, so that zero padding is code 0; needs an
            offset. The values of the grid stay those of ``beta`` and ``alpha``.
        initialised: 0-dim bool buffer; false until ``initialise`` ran or a checkpoint was loaded.
    """

    initialised: Tensor
    beta: nn.Parameter | None

    def __init__(
        self,
        grid: Grid,
        *,
        bits: int,
        offset: bool = False,
        method: Initialisation = "mse",
        kind: Kind = SAQ,
        counts_from_zero: bool = False,
    ) -> None:
        super().__init__()
        if counts_from_zero and not offset:
            raise ValueError("codes without an offset count from zero anyway")
        self.grid = grid
        self.bits = bits
        self.method = method
        self.kind = kind
        self.counts_from_zero = counts_from_zero
        self.alpha = nn.Parameter(torch.ones(()), requires_grad=kind.learns != "nothing")
        self.beta = nn.Parameter(torch.zeros(())) if offset else None
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))
        self._estimates: list[GridParameters] | None = None

    @property
    def scale(self) -> Tensor:
        """Distance of neighbouring integers, 0-dim, without gradient: what export writes."""
        return scale_of(self._in_use().alpha, self.grid.unit)

    def _in_use(self) -> GridParameters:
        alpha = self.alpha.detach().clamp_min(STEP_FLOOR) if self.kind.learns_step else self.alpha.detach()
        return GridParameters(alpha, None if self.beta is None else self.beta.detach())

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of ``x`` as floats, without gradient."""
        beta = self._in_use().beta
        return codes(
            self._prepared(x.detach()), self.scale, self.grid, beta, counts_from_zero=self.counts_from_zero
        )

    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code: the grid's, less the code of zero where codes count from that."""
        zero = 0
        if self.counts_from_zero and self.beta is not None:
            zero = int(zero_level(self.scale, self.grid, self.beta.detach())[0])
        return self.grid.minimum - zero, self.grid.maximum - zero

    def offset(self, elements: int = 1) -> Tensor | None:
        """The value of code 0, 0-dim and differentiable; None where that is 0.

        It is ``beta``, or the value of zero where codes count from that.

        Args:
            elements: of the tensor that was quantized, by which LSQ scales the gradient of a step.
        """
        if self.beta is None or not self.counts_from_zero:
            return self.beta
        scaled = self._gradient_scale(elements)
        return value_of_zero(self._alpha_in_use(), self.beta, self.grid, gradient_scale=scaled)

    def _alpha_in_use(self) -> Tensor:
        return at_least(self.alpha, STEP_FLOOR) if self.kind.learns_step else self.alpha

    @torch.no_grad()
    def settle(self) -> None:
        """Set a step below its floor to that, so that an optimizer goes on from there, and not from where it
        overshot."""
        if self.kind.learns_step:
            self.alpha.clamp_(min=STEP_FLOOR)

    def _gradient_scale(self, elements: int) -> float:
        """LSQ scales its step's gradient by the tensor's size; clip levels learn unscaled (the paper)."""
        return (elements * self.grid.maximum) ** -0.5 if self.kind.learns_step else 1.0

    def clip_bounds(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value that is not clipped, 0-dim, without gradient."""
        alpha, beta = self._in_use()
        return clip_bounds(alpha, self.grid, beta)

    def clip_mask(self, x: Tensor) -> Tensor:
        """Bool tensor: where the straight-through gradient passes (paper Eq. 10)."""
        alpha, beta = self._in_use()
        return clip_mask(self._prepared(x), alpha, self.grid, beta)

    def zero_point(self, *, below_zero: bool = True) -> int:
        """What stored codes have added, if values ``below_zero`` occur; else nothing."""
        return -min(self.code_range()[0], 0) if below_zero else 0

    def forward(self, x: Tensor, added: "Added | None" = None, averaged: "Averaged | None" = None) -> Tensor:
        """``x`` on the grid, any shape.

        Args:
            added: the terms that ``x`` is the sum of, where one integer kernel adds their codes: in
                evaluation and in float32 the sum is rounded as that does.
            averaged: likewise what ``x`` is the mean of, over height and width.
        """
        x = x.to(self.alpha.dtype)
        if not self.training and x.dtype == torch.float32:
            if added is not None:
                x = self._rounded_as_added(x, *added)
            if averaged is not None:
                x = rounded_as_means(x, averaged[0], averaged[1].scale, self.scale)
        if self._estimates is not None:
            self._estimates.append(self._estimate(x.detach()))
            self._set(_mean(self._estimates))
        return self.kind.fake_quantize(
            self._prepared(x),
            self._alpha_in_use(),
            self.grid,
            beta=self.beta,
            gradient_scale=self._gradient_scale(x.numel()),
            counts_from_zero=self.counts_from_zero,
        )

    def _rounded_as_added(
        self,
        x: Tensor,
        terms: tuple[Tensor, Tensor],
        of_terms: tuple["Quantizer", "Quantizer"],
        bounds: tuple[float | None, float | None, float | None],
    ) -> Tensor:
        """Sums that repeat one of their terms, or were reshaped, stay as they are."""
        (a, b), (first, second) = terms, of_terms
        if not a.shape == b.shape == x.shape:
            return x
        scales = first.scale, second.scale, self.scale
        below = [bound is None for bound in bounds]
        zero_points = (
            first.zero_point(below_zero=below[0]),
            second.zero_point(below_zero=below[1]),
            self.zero_point(below_zero=below[2]),
        )
        upper = math.inf if bounds[2] is None else bounds[2]
        return rounded_as_a_sum_of_codes(x, terms, scales, zero_points, upper)

    def _prepared(self, x: Tensor) -> Tensor:
        return x if self.kind.prepare is None else self.kind.prepare(x, self.alpha)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Place the grid by ``method`` on a sample of what will be quantized."""
        self._set(self._estimate(x.to(self.alpha.dtype)))

    def _estimate(self, x: Tensor) -> GridParameters:
        fixed = self.kind.learns == "nothing" and self.method != "ones"
        method: Initialisation = "max" if fixed else self.method
        return initial_parameters(x, self.grid, method, offset=self.beta is not None)

    def _set(self, parameters: GridParameters) -> None:
        self.alpha.data.copy_(parameters.alpha)
        if self.beta is not None and parameters.beta is not None:
            self.beta.data.copy_(parameters.beta)
        self.initialised.fill_(True)

    def observe(self, *, on: bool) -> None:
        """Place the grid at the mean of the estimates of every tensor met from now on, or stop doing so.

        The mean moves with each tensor, so that quantizers behind this one see what it will pass on.
        """
        self._estimates = [] if on else None

    def extra_repr(self) -> str:
        return f"{self.bits} bits, {self.grid.describe()}"


Added = tuple[
    tuple[Tensor, Tensor], tuple[Quantizer, Quantizer], tuple[float | None, float | None, float | None]
]
"""Two terms on their grids, their quantizers, and upper bounds of the ReLU that each of the terms and the sum
went through; None without one."""

Averaged = tuple[Tensor, Quantizer]
"""Values (N, C, H, W) on their grid, and its quantizer."""


def _mean(estimates: Sequence[GridParameters]) -> GridParameters:
    alphas = [estimate.alpha for estimate in estimates]
    betas = [estimate.beta for estimate in estimates if estimate.beta is not None]
    return GridParameters(torch.stack(alphas).mean(), torch.stack(betas).mean() if betas else None)


@contextmanager
def observing(quantizers: Sequence[Quantizer]) -> Iterator[None]:
    """Let each quantizer place itself on the tensors it meets in this context."""
    for quantizer in quantizers:
        quantizer.observe(on=True)
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.observe(on=False)
