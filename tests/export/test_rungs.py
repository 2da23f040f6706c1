"""A rung passes within its bounds and fails beyond them."""

from dataclasses import replace

import pytest

from saq_qat_export.comparison import TensorComparison
from saq_qat_export.rungs import tied_rung


def comparison(producer: str, **counts: int) -> TensorComparison:
    base = TensorComparison("a.codes", "integer", 10**6, 0, 0, 0, 0)
    return replace(base, **{"producer": producer, **counts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tensor", "passed"),
    [
        (comparison("integer"), True),
        (comparison("integer", ties=5000, tie_values=5, largest_step=1), True),
        (comparison("integer", ties=5000, tie_values=5000, largest_step=1), False),
        (comparison("integer", ties=1, tie_values=1, largest_step=2), False),
        (comparison("integer", mismatches=1, largest_step=1), False),
        (comparison("float", mismatches=9, largest_step=1), True),
        (comparison("float", mismatches=11, largest_step=1), False),
        (comparison("float", mismatches=1, largest_step=2), False),
    ],
)
def test_bounds_of_the_float64_rung(tensor: TensorComparison, passed: bool) -> None:
    assert tied_rung("deploy view in float64", [tensor], hard=True).passed is passed
