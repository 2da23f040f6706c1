"""Learned clip levels: the quantizers of sharpness-aware quantization.

Source: J. Liu, J. Cai, B. Zhuang, "Sharpness-aware Quantization for Deep Neural Networks", arXiv 2111.12273,
Eq. 1, 2 and 10; weights as in APoT (Y. Li, X. Dong, W. Wang, ICLR 2020).
"""

from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.kinds.kind import Kind
from saq_qat.quant.numerics.kinds.symmetric import clipped_grid, symmetric_grid

__all__ = ["SAQ", "odd_grid"]


def odd_grid(bits: int, paper: bool) -> Grid:
    """2^b odd integers -n .. n, without zero (paper Eq. 1 and 2).

    At 8 bits these reach 255, which no int8 tensor holds: the symmetric grid takes their place, but for
    ``paper``.
    """
    n = 2**bits - 1
    return Grid(-n, n, unit=n, step=2) if bits < 8 or paper else symmetric_grid(bits, paper)


SAQ = Kind("saq", weight_grid=odd_grid, activation_grid=clipped_grid)
