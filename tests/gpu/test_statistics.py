"""The statistics of the kit against an independent library, and where nothing differs."""

import numpy as np
import pytest
from scipy import stats

from tests.gpu.statistics import paired


@pytest.mark.parametrize("count", [2, 4, 8, 20])
def test_a_paired_t_is_scipys(count: int) -> None:
    generator = np.random.default_rng(count)
    a, b = generator.normal(0.3, 1, count), generator.normal(0, 1, count)
    found, expected = paired(a.tolist(), b.tolist()), stats.ttest_rel(a, b)
    assert found.t == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-6)


def test_the_interval_is_about_that_of_scipys_bootstrap() -> None:
    difference = np.random.default_rng(5).normal(0.5, 1, 12)
    found = paired(difference.tolist(), [0.0] * 12)
    theirs = stats.bootstrap((difference,), np.mean, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.05)


def test_equal_runs_do_not_differ() -> None:
    found = paired([1.0, 2.0], [1.0, 2.0])
    assert (found.mean, found.low, found.high, found.t, found.p) == (0.0, 0.0, 0.0, 0.0, 1.0)
