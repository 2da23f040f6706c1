"""Grids: which integer codes a quantizer may output, and which code its learned parameter stands for.

Which grid a kind of quantizer takes stands in ``kinds/``.
"""

from dataclasses import dataclass

__all__ = ["INT16_MAX", "Grid", "exceeds_pair_bound"]

INT16_MAX = 32767
"""Where x86 kernels without VNNI saturate the sum of two products."""


def exceeds_pair_bound(largest_stored: int, largest_weight: int) -> bool:
    """Whether two products of uint8 and int8 codes may leave int16, where such kernels saturate.

    Args:
        largest_stored: of the uint8 factor, zero point included.
        largest_weight: magnitude of the int8 factor.
    """
    return 2 * largest_stored * largest_weight > INT16_MAX


@dataclass(frozen=True)
class Grid:
    """The legal codes ``minimum, minimum + step, ..., maximum`` and the unit of the learned parameter.

    A value on the grid is ``scale * code (+ offset)`` with ``scale = |alpha| / unit``: for a clip level,
    ``unit`` is the code at the clip level; for a learned step size (LSQ) it is 1.

    ========================  ==================  =======================  ====
    quantizer                 codes               unit                     step
    ========================  ==================  =======================  ====
    saq weight, b bits        -n .. n, odd        n = 2^b - 1              2
    symmetric, b bits         -(n // 2) .. n // 2 n // 2 = 2^(b-1) - 1     1
    behind 0 .. 255 stored    at most -63 .. 63   63 (lsq: 1)              1
    saq activation, b <= 7    0 .. n              n                        1
    8-bit unsigned            0 .. 127            127                      1
    8-bit signed activation   -128 .. 127         127                      1
    lsq signed, b bits        -2^(b-1) .. n // 2  1                        1
    lsq unsigned, b bits      0 .. n              1                        1
    ========================  ==================  =======================  ====

    The third row is the pair bound: kernels of x86 CPUs without VNNI add two products of uint8 and int8 codes
    in saturating int16, so weights behind codes that are stored as 0 .. 255 (8-bit signed ones, and unsigned
    ones of ``lsq``) are narrower.
    """

    minimum: int
    maximum: int
    unit: int
    step: int = 1

    @property
    def signed(self) -> bool:
        return self.minimum < 0

    @property
    def largest_stored(self) -> int:
        """Largest number that stores a code as uint8: negative codes are moved up by the zero point."""
        return self.maximum - min(self.minimum, 0)

    @property
    def levels(self) -> int:
        return (self.maximum - self.minimum) // self.step + 1

    def describe(self) -> str:
        """Codes as a person writes them: ``-15..15 odd``."""
        return f"{self.minimum}..{self.maximum}" + (" odd" if self.step == 2 else "")
