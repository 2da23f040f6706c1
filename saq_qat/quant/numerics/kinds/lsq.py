"""Learned step sizes, with LSQ+'s offset where a recipe asks for one.

Sources: S. Esser et al., "Learned Step Size Quantization", ICLR 2020; Y. Bhalgat et al., "LSQ+", CVPR
Workshops 2020; the floor of step sizes is that of Q-ViT's quantizers (Z. Li et al., 2022).
"""

from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.kinds.kind import Kind

__all__ = ["LSQ"]


def _weight_grid(bits: int, paper: bool) -> Grid:
    """-2^(b-1) .. 2^(b-1) - 1; 8 bits leave out -128: a BatchNorm of negative gain flips signs, and int8 has
    no 128."""
    half = 2 ** (bits - 1)
    return Grid(-127 if bits == 8 and not paper else -half, half - 1, unit=1)


def _activation_grid(bits: int, signed: bool, paper: bool) -> Grid:
    half = 2 ** (bits - 1)
    return Grid(-half, half - 1, unit=1) if signed else Grid(0, 2**bits - 1, unit=1)


LSQ = Kind(
    "lsq",
    weight_grid=_weight_grid,
    activation_grid=_activation_grid,
    learns="step size",
    normalizes=False,
)
