"""Studies whose runs are kept are told with the numbers of these runs, everywhere."""

import math
from itertools import product
from pathlib import Path

import pytest

from tests.docs.study_tables import (
    OTHERS,
    RESULTS,
    STUDIES,
    TOP1,
    benchmark_lines,
    difference,
    header_lines,
    kept,
)

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in RESULTS.glob("*.csv"))


@pytest.mark.parametrize("name", NAMES)
def test_every_run_of_a_study_is_kept_once_with_its_numbers(name: str) -> None:
    found = kept(name)
    runs = [(row["arm"], int(row["seed"])) for row in found.rows]
    assert sorted(runs) == sorted(product(found.study.arms, found.study.seeds))
    for row in found.rows:
        assert all(math.isfinite(float(row[column.key])) for column in (TOP1, *OTHERS)), row
    assert len({row["checkpoint_sha256"] for row in found.rows}) == len(runs), "a network stands there twice"


@pytest.mark.parametrize("name", NAMES)
def test_the_head_of_a_study_and_benchmarks_show_what_its_runs_give(name: str) -> None:
    found = kept(name)
    head = (STUDIES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert [line for line in header_lines(found) if line.rstrip() not in head] == []
    benchmarks = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in benchmark_lines(found) if line not in benchmarks] == []


def test_readme_quotes_what_the_runs_give() -> None:
    found = kept("cifar10-small-w4a4-final")
    (row,) = (line for line in (ROOT / "README.md").read_text().splitlines() if "does SAQ pay?" in line)
    assert difference(found, "saq", "plain", TOP1) in row
    losses = [f"{found.values(arm, OTHERS[0]).mean():.3f}" for arm in ("saq", "plain")]
    assert " against ".join(losses) in row
