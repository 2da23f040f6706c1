"""One comparison of the ladder of proof, and when it counts as passed."""

from dataclasses import dataclass

from saq_qat_export.comparison import TensorComparison

__all__ = ["Rung", "exact_rung", "tied_rung"]

# A float32 multiplier is off by about 1e-7 of a value of up to 255 codes, so one value in some hundred
# thousand may lie that near a tie. More would be another arithmetic. The floor spares small proofs bad luck.
_TIES = 1e-5
_FEWEST_TIES = 8
# Behind LayerNorm, softmax and GELU of random Vision Transformers, 2 in 10 million codes of 4 bits differ and
# 5 in a million of 8 bits, whose steps are finer; behind float convolutions 2 in a million.
_FLOAT_OPERATIONS = 1e-5


@dataclass(frozen=True)
class Rung:
    """One comparison of the ladder; ``tensors`` is empty where logits are compared, not codes."""

    name: str
    hard: bool
    passed: bool
    compared: int
    mismatches: int
    detail: str
    tensors: tuple[TensorComparison, ...] = ()


def exact_rung(name: str, tensors: list[TensorComparison]) -> Rung:
    """Passed if no code behind integer kernels differs."""
    exact = not any(t.mismatches for t in tensors if t.producer == "integer")
    return _rung(name, tensors, hard=True, passed=exact and _float_within_bounds(tensors))


def tied_rung(name: str, tensors: list[TensorComparison], *, hard: bool, mismatches: float = 0.0) -> Rung:
    """Passed if codes behind integer kernels differ by one step, and almost all of them at rare ties.

    Args:
        mismatches: share of codes that may differ beside a tie.
    """
    integer = [t for t in tensors if t.producer == "integer"]
    compared = sum(t.compared for t in tensors)
    passed = (
        sum(t.mismatches for t in integer) <= mismatches * compared
        and sum(t.tie_values for t in integer) <= max(_TIES * compared, _FEWEST_TIES)
        and all(t.largest_step <= 1 for t in integer)
        and _float_within_bounds(tensors)
    )
    return _rung(name, tensors, hard=hard, passed=passed)


def _float_within_bounds(tensors: list[TensorComparison]) -> bool:
    """Whether codes behind float operations, which engines round differently, differ rarely, by one step."""
    behind = [t for t in tensors if t.producer == "float"]
    differing = sum(t.mismatches + t.ties for t in behind)
    compared = sum(t.compared for t in tensors)
    few = differing <= max(_FLOAT_OPERATIONS * compared, _FEWEST_TIES)
    return few and all(t.largest_step <= 1 for t in behind)


def _rung(name: str, tensors: list[TensorComparison], *, hard: bool, passed: bool) -> Rung:
    compared = sum(t.compared for t in tensors)
    tied = sum(t.ties for t in tensors)
    details = [f"first at {t.name}: {t.mismatches} of {t.compared}" for t in tensors if t.mismatches][:1]
    if tied:
        details.append(f"{tied} of {compared} at a rounding tie")
    differing = sum(t.mismatches for t in tensors)
    return Rung(name, hard, passed, compared, differing, "; ".join(details), tuple(tensors))
