"""Grids: which integer codes a quantizer may output, and which code its learned parameter stands for."""

from dataclasses import dataclass

from saq_qat.errors import LegalityError

__all__ = ["INT16_MAX", "Grid", "activation_grid", "exceeds_pair_bound", "weight_grid"]

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


def weight_grid(kind: str, bits: int, *, paper: bool = False, largest_input: int | None = None) -> Grid:
    """Grid of a weight quantizer (paper Eq. 1 and 2 for ``saq``).

    Eight-bit ``saq`` weights fall back to the symmetric grid unless ``paper`` asks for the odd integers up to
    255, which no int8 tensor holds. Eight-bit ``lsq`` weights leave out -128, likewise: folding a BatchNorm
    of negative gain flips the signs of codes, and int8 has no 128.

    Args:
        largest_input: largest stored code of the layer's input (``Grid.largest_stored``). A grid that exceeds
            the pair bound with it gives way to the widest symmetric one that keeps it, -63..63 behind 255;
            those of the paper stay as they are, for the rules to judge. None: there is no such bound.

    Raises:
        LegalityError: the kind is unknown.
    """
    grid = _free_weight_grid(kind, bits, paper=paper)
    if largest_input is None or (paper and kind != "symmetric"):
        return grid
    if not exceeds_pair_bound(largest_input, max(-grid.minimum, grid.maximum)):
        return grid
    widest = 2 ** ((INT16_MAX // (2 * largest_input) + 1).bit_length() - 1) - 1
    return Grid(-widest, widest, unit=1 if kind == "lsq" else widest)


def _free_weight_grid(kind: str, bits: int, *, paper: bool) -> Grid:
    n = 2**bits - 1
    if kind == "saq" and (bits < 8 or paper):
        return Grid(-n, n, unit=n, step=2)
    if kind in ("saq", "symmetric"):
        return Grid(-(n // 2), n // 2, unit=n // 2)
    if kind == "lsq":
        return Grid(-127 if bits == 8 and not paper else -(n // 2) - 1, n // 2, unit=1)
    raise LegalityError(f"Weight quantizers are saq, symmetric or lsq; got {kind!r}.")


def activation_grid(kind: str, bits: int, *, signed: bool, paper: bool = False) -> Grid:
    """Grid of an activation quantizer; ``signed`` says whether the tensor can be negative.

    Eight-bit unsigned codes stop at 127 so that they fit uint8 and int8, and so that sums of two products
    with int8 weights stay below the 16-bit saturation of x86 kernels without VNNI; ``paper`` keeps all 256
    levels, and so does ``lsq``. Eight-bit signed codes use the whole of int8: its saturation is the clip, and
    needs no node of its own. Weights behind codes that are stored as 0..255 are narrower (``weight_grid``).

    Raises:
        LegalityError: the kind is unknown.
    """
    n = 2**bits - 1
    if kind == "lsq":
        return Grid(-(n // 2) - 1, n // 2, unit=1) if signed else Grid(0, n, unit=1)
    if kind not in ("saq", "symmetric"):
        raise LegalityError(f"Activation quantizers are saq, symmetric or lsq; got {kind!r}.")
    if signed or kind == "symmetric":
        return Grid(-128 if bits == 8 else -(n // 2), n // 2, unit=n // 2)
    if bits == 8 and not paper:
        return Grid(0, 127, unit=127)
    return Grid(0, n, unit=n)
