"""A comparison passes within its bounds and fails beyond them."""

from dataclasses import replace

import pytest

from saq_qat_export.proof.comparison import exact_comparison, tied_comparison
from saq_qat_export.proof.tensors import TensorComparison


def counted(producer: str, **counts: int) -> TensorComparison:
    base = TensorComparison("a.codes", "integer", 10**6, 0, 0, 0, 0)
    return replace(base, **{"producer": producer, **counts})  # type: ignore[arg-type]  # fields of two types


# Behind float operations, 2 * 2^-24 ties a code and step: 8 at the least, 30 of a million codes of 8 bits.
FLOAT = [
    (counted("float", mismatches=1, largest_step=1), False),
    (counted("float", ties=8, tie_values=8, largest_step=1, steps=15), True),
    (counted("float", ties=9, tie_values=9, largest_step=1, steps=15), False),
    (counted("float", ties=5000, tie_values=30, largest_step=1, steps=255), True),
    (counted("float", ties=31, tie_values=31, largest_step=1, steps=255), False),
    (counted("float", ties=1, tie_values=1, largest_step=2, steps=15), False),
]


@pytest.mark.parametrize(
    ("tensor", "passed"),
    [
        (counted("integer"), True),
        (counted("integer", ties=5000, tie_values=5, largest_step=1), True),
        (counted("integer", ties=5000, tie_values=5000, largest_step=1), False),
        (counted("integer", ties=1, tie_values=1, largest_step=2), False),
        (counted("integer", mismatches=1, largest_step=1), False),
        *FLOAT,
    ],
)
def test_bounds_of_the_float64_comparison(tensor: TensorComparison, passed: bool) -> None:
    assert tied_comparison("deploy view in float64", [tensor], hard=True).passed is passed


@pytest.mark.parametrize(
    ("tensor", "passed"),
    [
        (counted("integer"), True),
        (counted("integer", mismatches=1, largest_step=1), False),
        *FLOAT,
    ],
)
def test_bounds_of_the_reference_comparison(tensor: TensorComparison, passed: bool) -> None:
    assert exact_comparison("integer reference", [tensor]).passed is passed


def test_floats_that_read_float32_sums_part_more_often() -> None:
    """As many as codes of integer kernels evaluated so."""
    tensor = counted("float", ties=10, tie_values=10, largest_step=1, steps=15)
    assert tied_comparison("graph in float32", [tensor], hard=True, in_floats=True).passed
    assert not tied_comparison("deploy view in float64", [tensor], hard=True).passed


def test_a_comparison_says_apart_what_integer_kernels_and_float_operations_did() -> None:
    tensors = [
        counted("integer"),
        replace(counted("float", ties=3, tie_values=3, largest_step=1, steps=255), name="softmax.codes"),
    ]
    comparison = exact_comparison("integer reference", tensors)
    assert (comparison.passed, comparison.mismatches) == (True, 0)
    assert (
        comparison.detail
        == "integer kernels: 0 of 1,000,000; float operations: 0 of 1,000,000 and 3 at a rounding tie"
    )
