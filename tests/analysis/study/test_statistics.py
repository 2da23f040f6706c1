"""Statistics computed by other means: sums by hand, the t density integrated, all resamples enumerated."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saq_qat.analysis.study.statistics import paired_difference, spread_of

VALUES = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3))
ARM = st.dictionaries(st.integers(0, 9), VALUES, max_size=8)


def tail(t: float, freedom: int) -> float:
    """P(|T| > t) of Student's distribution, by Simpson's rule over its density in x = tan(u)."""
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(
        freedom * math.pi
    )
    u = np.linspace(math.atan(abs(t)), math.pi / 2, 20001)[:-1]
    density = constant * (1 + np.tan(u) ** 2 / freedom) ** (-(freedom + 1) / 2) / np.cos(u) ** 2
    end = 2 * constant if freedom == 1 else 0.0
    density = np.append(density, end / 2)
    weights = np.ones(len(density))
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return float(2 * (weights * density).sum() * (u[1] - u[0]) / 3)


@given(of=ARM, against=ARM)
def test_pairs_are_by_seed_and_the_others_are_named(of: dict[int, float], against: dict[int, float]) -> None:
    found = paired_difference(of, against)
    both = [seed for seed in range(10) if seed in of and seed in against]
    assert list(found.seeds) == both
    assert list(found.differences) == [of[seed] - against[seed] for seed in both]
    assert list(found.missing) == [seed for seed in range(10) if (seed in of) != (seed in against)]
    if both:
        assert found.mean == pytest.approx(sum(found.differences) / len(both), abs=1e-9)
    else:
        assert found.mean is None


@given(differences=st.lists(VALUES, min_size=2, max_size=7))
def test_the_paired_t_is_that_of_the_formula(differences: list[float]) -> None:
    n = len(differences)
    found = paired_difference(dict(enumerate(differences)), dict.fromkeys(range(n), 0.0))
    mean = sum(differences) / n
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    if max(differences) == min(differences):
        assert (found.t, found.p, found.t_interval) == (None, None, None)
        return
    assert found.t is not None and found.p is not None and found.t_interval is not None
    assert found.t == pytest.approx(mean / error, rel=1e-6, abs=1e-9)
    if abs(found.t) < 50:
        assert found.p == pytest.approx(tail(found.t, n - 1), abs=2e-4)
    half = (found.t_interval.high - found.t_interval.low) / 2
    assert (found.t_interval.high + found.t_interval.low) / 2 == pytest.approx(mean, abs=1e-6)
    assert tail(half / error, n - 1) == pytest.approx(0.05, abs=2e-3)


@pytest.mark.parametrize("differences", [(0.1, 0.7, -0.4, 1.2), (1.0, 2.0), (-3.0, 0.5, 0.25)])
def test_the_bootstrap_is_that_of_all_resamples(differences: tuple[float, ...]) -> None:
    n = len(differences)
    means = [float(np.mean(chosen)) for chosen in product(differences, repeat=n)]
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    found = paired_difference(dict(enumerate(differences)), dict.fromkeys(range(n), 0.0)).bootstrap
    assert found is not None
    spacing = (max(differences) - min(differences)) / n  # of neighbouring means
    assert found.low == pytest.approx(low, abs=spacing / 2)
    assert found.high == pytest.approx(high, abs=spacing / 2)


@settings(max_examples=20)
@given(of=ARM, against=ARM)
def test_turning_a_comparison_around_turns_its_signs(of: dict[int, float], against: dict[int, float]) -> None:
    there, back = paired_difference(of, against), paired_difference(against, of)
    assert back.differences == tuple(-difference for difference in there.differences)
    assert back.p == pytest.approx(there.p)
    if there.bootstrap is not None and back.bootstrap is not None:
        width = there.bootstrap.high - there.bootstrap.low
        assert back.bootstrap.low == pytest.approx(-there.bootstrap.high, abs=0.2 * width + 1e-9)


def test_one_pair_has_a_difference_and_no_interval() -> None:
    found = paired_difference({3: 2.0}, {3: 1.5, 4: 9.0})
    assert (found.mean, found.missing) == (0.5, (4,))
    assert (found.bootstrap, found.t, found.p, found.t_interval) == (None, None, None, None)


def test_equal_differences_have_no_test() -> None:
    found = paired_difference({0: 90.3, 1: 80.3}, {0: 90.0, 1: 80.0})
    assert (found.t, found.p, found.t_interval) == (None, None, None)
    assert found.bootstrap is not None and found.bootstrap.low == pytest.approx(0.3)


@given(values=st.lists(VALUES, max_size=6))
def test_a_spread_is_mean_and_deviation_with_one_less(values: list[float]) -> None:
    found = spread_of(values)
    if not values:
        assert found is None
        return
    assert found is not None
    mean = sum(values) / len(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(mean, abs=1e-9)
    if len(values) == 1:
        assert found.deviation is None
    else:
        squares = sum((value - mean) ** 2 for value in values)
        assert found.deviation == pytest.approx(math.sqrt(squares / (len(values) - 1)), abs=1e-9)
