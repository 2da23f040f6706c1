"""A quantizer: a grid and the parameters that place it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from saq_qat.quant.functional import clip_mask, codes, fake_quantize, scale_of
from saq_qat.quant.grid import Grid
from saq_qat.quant.initialise import Initialisation, clip_level, least_squares, reaching

__all__ = ["Quantizer", "observing"]


class Quantizer(nn.Module):
    """Fake-quantizes a tensor of any shape on ``grid``.

    Attributes:
        alpha: 0-dim parameter; the clip level, or the step size when ``grid.unit`` is 1 (LSQ).
        beta: 0-dim parameter, the offset of LSQ+; None otherwise.
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
        lsq: bool = False,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.bits = bits
        self.method = method
        self.lsq = lsq
        self.alpha = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.zeros(())) if offset else None
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))
        self._estimates: list[tuple[Tensor, Tensor | None]] | None = None

    @property
    def scale(self) -> Tensor:
        """Distance of neighbouring integers, 0-dim, without gradient: what export writes."""
        return scale_of(self.alpha, self.grid.unit)

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of ``x`` as floats, without gradient."""
        return codes(x.detach(), self.scale, self.grid, None if self.beta is None else self.beta.detach())

    def clip_mask(self, x: Tensor) -> Tensor:
        """Bool tensor: where the straight-through gradient passes (paper Eq. 10)."""
        return clip_mask(x, self.alpha, self.grid, self.beta)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.alpha.dtype)
        if self._estimates is not None:
            self._estimates.append(self._estimate(x.detach()))
            self._set(*_mean(self._estimates))
        # LSQ scales its step's gradient by the tensor's size; clip levels learn unscaled, as in the paper
        gradient_scale = (x.numel() * self.grid.maximum) ** -0.5 if self.lsq else 1.0
        return fake_quantize(x, self.alpha, self.grid, beta=self.beta, gradient_scale=gradient_scale)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Place the grid by ``method`` on a sample of what will be quantized."""
        self._set(*self._estimate(x.to(self.alpha.dtype)))

    def _estimate(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.lsq and self.method == "mse":
            return least_squares(x, self.grid, offset=self.beta is not None)
        if self.beta is not None and self.method == "max":
            return reaching(x, self.grid, offset=True)
        reach = self.grid.maximum / self.grid.unit
        beta = x.min() if self.beta is not None else None
        return clip_level(x if beta is None else x - beta, self.grid, self.method) / reach, beta

    def _set(self, alpha: Tensor, beta: Tensor | None) -> None:
        self.alpha.data.copy_(alpha)
        if self.beta is not None and beta is not None:
            self.beta.data.copy_(beta)
        self.initialised.fill_(True)

    def observe(self, *, on: bool) -> None:
        """Place the grid at the mean of the estimates of every tensor met from now on, or stop doing so.

        The mean moves with each tensor, so that quantizers behind this one see what it will pass on.
        """
        self._estimates = [] if on else None

    def extra_repr(self) -> str:
        return f"{self.bits} bits, {self.grid.describe()}"


def _mean(estimates: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    alphas = [alpha for alpha, _ in estimates]
    betas = [beta for _, beta in estimates if beta is not None]
    return torch.stack(alphas).mean(), torch.stack(betas).mean() if betas else None


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
