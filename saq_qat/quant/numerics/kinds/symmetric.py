"""Learned clip levels on grids with a zero in the middle; activations are signed even behind a ReLU."""

from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.kinds.kind import Kind

__all__ = ["SYMMETRIC", "clipped_grid", "signed_grid", "symmetric_grid"]


def symmetric_grid(bits: int, paper: bool) -> Grid:
    """-(2^(b-1) - 1) .. 2^(b-1) - 1, for weights: either sign fits int8, which a negative gain needs."""
    half = 2 ** (bits - 1) - 1
    return Grid(-half, half, unit=half)


def signed_grid(bits: int) -> Grid:
    """The same for activations; 8 bits use the whole of int8, whose saturation is the clip."""
    half = 2 ** (bits - 1) - 1
    return Grid(-128 if bits == 8 else -half, half, unit=half)


def clipped_grid(bits: int, signed: bool, paper: bool) -> Grid:
    """0 .. n where values cannot be negative, else signed.

    Eight-bit unsigned codes stop at 127: these fit uint8 and int8, and sums of two products with int8 weights
    stay below the 16-bit saturation of x86 kernels without VNNI. ``paper`` keeps all 256 levels.
    """
    if signed:
        return signed_grid(bits)
    n = 127 if bits == 8 and not paper else 2**bits - 1
    return Grid(0, n, unit=n)


def _always_signed(bits: int, signed: bool, paper: bool) -> Grid:
    return signed_grid(bits)


SYMMETRIC = Kind("symmetric", weight_grid=symmetric_grid, activation_grid=_always_signed, follows_paper=False)
