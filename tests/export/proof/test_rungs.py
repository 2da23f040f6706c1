"""A rung passes within its bounds and fails beyond them."""

from dataclasses import replace

import pytest

from saq_qat_export.proof.comparison import TensorComparison
from saq_qat_export.proof.rungs import exact_rung, tied_rung


def comparison(producer: str, **counts: int) -> TensorComparison:
    base = TensorComparison("a.codes", "integer", 10**6, 0, 0, 0, 0)
    return replace(base, **{"producer": producer, **counts})  # type: ignore[arg-type]


# Behind float operations, 2 * 2^-24 ties a code and step: 8 at the least, 30 of a million codes of 8 bits.
FLOAT = [
    (comparison("float", mismatches=1, largest_step=1), False),
    (comparison("float", ties=8, tie_values=8, largest_step=1, steps=15), True),
    (comparison("float", ties=9, tie_values=9, largest_step=1, steps=15), False),
    (comparison("float", ties=5000, tie_values=30, largest_step=1, steps=255), True),
    (comparison("float", ties=31, tie_values=31, largest_step=1, steps=255), False),
    (comparison("float", ties=1, tie_values=1, largest_step=2, steps=15), False),
]


@pytest.mark.parametrize(
    ("tensor", "passed"),
    [
        (comparison("integer"), True),
        (comparison("integer", ties=5000, tie_values=5, largest_step=1), True),
        (comparison("integer", ties=5000, tie_values=5000, largest_step=1), False),
        (comparison("integer", ties=1, tie_values=1, largest_step=2), False),
        (comparison("integer", mismatches=1, largest_step=1), False),
        *FLOAT,
    ],
)
def test_bounds_of_the_float64_rung(tensor: TensorComparison, passed: bool) -> None:
    assert tied_rung("deploy view in float64", [tensor], hard=True).passed is passed


@pytest.mark.parametrize(
    ("tensor", "passed"),
    [
        (comparison("integer"), True),
        (comparison("integer", mismatches=1, largest_step=1), False),
        *FLOAT,
    ],
)
def test_bounds_of_the_reference_rung(tensor: TensorComparison, passed: bool) -> None:
    assert exact_rung("integer reference", [tensor]).passed is passed


def test_floats_that_read_float32_sums_part_more_often() -> None:
    """As many as codes of integer kernels evaluated so."""
    tensor = comparison("float", ties=10, tie_values=10, largest_step=1, steps=15)
    assert tied_rung("graph in float32", [tensor], hard=True, in_floats=True).passed
    assert not tied_rung("deploy view in float64", [tensor], hard=True).passed


def test_a_rung_says_apart_what_integer_kernels_and_float_operations_did() -> None:
    tensors = [
        comparison("integer"),
        replace(comparison("float", ties=3, tie_values=3, largest_step=1, steps=255), name="softmax.codes"),
    ]
    rung = exact_rung("integer reference", tensors)
    assert (rung.passed, rung.mismatches) == (True, 0)
    assert (
        rung.detail
        == "integer kernels: 0 of 1,000,000; float operations: 0 of 1,000,000 and 3 at a rounding tie"
    )
