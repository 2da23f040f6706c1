"""The table of kinds, and the grids they give."""

from saq_qat.errors import LegalityError
from saq_qat.quant.numerics.grid import INT16_MAX, Grid, exceeds_pair_bound
from saq_qat.quant.numerics.kinds.dorefa import DOREFA
from saq_qat.quant.numerics.kinds.kind import Kind
from saq_qat.quant.numerics.kinds.lsq import LSQ
from saq_qat.quant.numerics.kinds.pact import PACT
from saq_qat.quant.numerics.kinds.saq import SAQ
from saq_qat.quant.numerics.kinds.symmetric import SYMMETRIC

__all__ = ["KINDS", "activation_grid", "weight_grid"]

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        SAQ,
        SYMMETRIC,
        LSQ,
        PACT,
        DOREFA,
    )
}


def weight_grid(kind: str, bits: int, *, paper: bool = False, largest_input: int | None = None) -> Grid:
    """Grid of a weight quantizer.

    Args:
        paper: 8 bits keep the levels of the kind's paper, which may fit no int8.
        largest_input: largest stored code of the layer's input (``Grid.largest_stored``). A grid that exceeds
            the pair bound with it gives way to the widest symmetric one that keeps it, -63..63 behind 255;
            those of a paper stay as they are, for the rules to judge. None: there is no such bound.

    Raises:
        LegalityError: there is no such kind for weights.
    """
    found = KINDS.get(kind)
    if found is None or found.weight_grid is None:
        raise LegalityError(f"Weight quantizers are {_names(weights=True)}; got {kind!r}.")
    grid = found.weight_grid(bits, paper)
    if largest_input is None or (paper and found.follows_paper):
        return grid
    if not exceeds_pair_bound(largest_input, max(-grid.minimum, grid.maximum)):
        return grid
    widest = 2 ** ((INT16_MAX // (2 * largest_input) + 1).bit_length() - 1) - 1
    return Grid(-widest, widest, unit=1 if found.learns_step else widest)


def activation_grid(kind: str, bits: int, *, signed: bool, paper: bool = False) -> Grid:
    """Grid of an activation quantizer; ``signed`` says whether the tensor can be negative.

    Weights behind codes that are stored as 0..255 are narrower (``weight_grid``).

    Raises:
        LegalityError: there is no such kind for activations.
    """
    found = KINDS.get(kind)
    if found is None or found.activation_grid is None:
        raise LegalityError(f"Activation quantizers are {_names(weights=False)}; got {kind!r}.")
    return found.activation_grid(bits, signed, paper)


def _names(*, weights: bool) -> str:
    fitting = (k for k in KINDS.values() if (k.weight_grid if weights else k.activation_grid) is not None)
    return ", ".join(kind.name for kind in fitting)
