"""One comparison of the proof, and when it counts as passed."""

from dataclasses import dataclass

from saq_qat_export.proof.tensors import Producer, TensorComparison

__all__ = ["Comparison", "exact_comparison", "tied_comparison"]

# A float32 multiplier is off by about 1e-7 of a value of up to 255 codes, so one value in some hundred
# thousand may lie that near a tie. More would be another arithmetic. The floor spares small proofs bad luck.
_TIES = 1e-5
_FEWEST_TIES = 8
# Behind float operations, as many as if every value were off by 2^-24 of the largest: an error of e codes
# turns 2 e of them. Random and trained Vision Transformers of 4 and 8 bits have at most a third of that.
_FLOAT_TIES_PER_STEP = 2 * 2.0**-24


@dataclass(frozen=True)
class Comparison:
    """One comparison of the proof.

    Attributes:
        mismatches: what differs and no rounding tie explains; ``detail`` has the ties.
        tensors: empty where answers are compared, not codes.
    """

    name: str
    hard: bool
    passed: bool
    compared: int
    mismatches: int
    detail: str
    tensors: tuple[TensorComparison, ...] = ()


def exact_comparison(name: str, tensors: list[TensorComparison]) -> Comparison:
    """Passed if no code or float of an integer kernel differs, and behind float operations only rare ties."""
    return _comparison(name, tensors, hard=True, passed=_is_exact(tensors))


def tied_comparison(
    name: str,
    tensors: list[TensorComparison],
    *,
    hard: bool,
    mismatches: float = 0.0,
    in_floats: bool = False,
) -> Comparison:
    """Passed if codes differ by one step, and almost all of them at rare ties.

    Args:
        mismatches: share of codes that may differ beside a tie.
        in_floats: whether the sums of integer kernels were computed in float32, whose errors the layers
            behind them see.
    """
    integer, behind = _of(tensors, "integer"), _of(tensors, "float")
    compared = sum(t.compared for t in tensors)
    few = max(_TIES * compared, _FEWEST_TIES)
    allowed = max(few if in_floats else 0.0, _float_ties(behind))
    passed = (
        sum(t.mismatches for t in tensors) <= mismatches * compared
        and sum(t.tie_values for t in integer) <= few
        and sum(t.tie_values for t in behind) <= allowed
        and all(t.largest_step <= 1 for t in tensors)
    )
    return _comparison(name, tensors, hard=hard, passed=passed)


def _is_exact(tensors: list[TensorComparison]) -> bool:
    behind = _of(tensors, "float")
    return (
        not any(t.mismatches for t in tensors)
        and sum(t.tie_values for t in behind) <= _float_ties(behind)
        and all(t.largest_step <= 1 for t in behind)
    )


def _of(tensors: list[TensorComparison], producer: Producer) -> list[TensorComparison]:
    return [tensor for tensor in tensors if tensor.producer == producer]


def _float_ties(behind: list[TensorComparison]) -> float:
    return max(_FLOAT_TIES_PER_STEP * sum(t.steps * t.compared for t in behind), _FEWEST_TIES)


def _comparison(name: str, tensors: list[TensorComparison], *, hard: bool, passed: bool) -> Comparison:
    first = [f"first at {t.name}: {t.mismatches} of {t.compared}" for t in tensors if t.mismatches][:1]
    kinds = (("integer kernels", _of(tensors, "integer")), ("float operations", _of(tensors, "float")))
    details = [*first, *(_differing(words, some) for words, some in kinds if some)]
    compared, differing = sum(t.compared for t in tensors), sum(t.mismatches for t in tensors)
    return Comparison(name, hard, passed, compared, differing, "; ".join(details), tuple(tensors))


def _differing(behind: str, tensors: list[TensorComparison]) -> str:
    compared, differing = sum(t.compared for t in tensors), sum(t.mismatches for t in tensors)
    ties = sum(t.ties for t in tensors)
    beside = f" and {ties:,} at a rounding tie" if ties else ""
    return f"{behind}: {differing:,} of {compared:,}{beside}"
