"""A quantizer: a grid and the parameters that place it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from saq_qat.quant.functional import clip_mask, codes, fake_quantize, scale_of
from saq_qat.quant.grid import Grid
from saq_qat.quant.initialise import Initialisation, clip_level, least_squares

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
        self, grid: Grid, *, bits: int, offset: bool = False, method: Initialisation = "mse", lsq: bool = False
    ) -> None:
        super().__init__()
        self.grid = grid
        self.bits = bits
        self.method = method
        self.lsq = lsq
        self.alpha = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.zeros(())) if offset else None
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))
        self._observed: list[tuple[Tensor, Tensor | None]] | None = None

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
        if self._observed is not None:
            self._observe(x)
        x = x.to(self.alpha.dtype)
        # LSQ scales the step's gradient by the size of what it quantizes; clip levels learn unscaled, as in the paper.
        gradient_scale = (x.numel() * self.grid.maximum) ** -0.5 if self.lsq else 1.0
        return fake_quantize(x, self.alpha, self.grid, beta=self.beta, gradient_scale=gradient_scale)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Place the grid by ``method`` on a sample of what will be quantized."""
        self._set(*self._estimate(x.to(self.alpha.dtype)))

    def _estimate(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.lsq and self.method == "mse":
            return least_squares(x, self.grid, offset=self.beta is not None)
        reach = self.grid.maximum / self.grid.unit
        beta = x.min() if self.beta is not None else None
        return clip_level(x if beta is None else x - beta, self.grid, self.method) / reach, beta

    def _set(self, alpha: Tensor, beta: Tensor | None) -> None:
        self.alpha.data.copy_(alpha)
        if self.beta is not None and beta is not None:
            self.beta.data.copy_(beta)
        self.initialised.fill_(True)

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        """Running mean over calibration batches, so that later quantizers see what this one will pass on."""
        assert self._observed is not None
        self._observed.append(self._estimate(x.to(self.alpha.dtype)))
        alphas, betas = zip(*self._observed, strict=True)
        self._set(
            torch.stack(alphas).mean(),
            None if self.beta is None else torch.stack([b for b in betas if b is not None]).mean(),
        )

    def extra_repr(self) -> str:
        return f"{self.bits} bits, {self.grid.describe()}"


@contextmanager
def observing(quantizers: list[Quantizer]) -> Iterator[None]:
    """Let each quantizer place itself on every tensor it meets in this context."""
    for quantizer in quantizers:
        quantizer._observed = []
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer._observed = None
