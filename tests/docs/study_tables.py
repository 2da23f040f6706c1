"""Tables of the studies whose runs are kept in configs/studies/results, in the words that documents use.

``python -m tests.docs.study_tables NAME`` prints the lines for the head of configs/studies/NAME.yaml and for
BENCHMARKS.md. SciPy computes what saq_qat.analysis.study.statistics computed when the study was run.
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from saq_qat.analysis.study.schema import Study, load_study

__all__ = [
    "OTHERS",
    "RESULTS",
    "STUDIES",
    "TOP1",
    "Kept",
    "another_seed",
    "benchmark_lines",
    "difference",
    "header_lines",
    "kept",
]

STUDIES = Path(__file__).parents[2] / "configs" / "studies"
RESULTS = STUDIES / "results"


@dataclass(frozen=True)
class Column:
    """A number of a run: its key in runs.csv, its name in documents, and its digits there."""

    key: str
    name: str
    digits: int


TOP1 = Column("deployed_top1", "top-1", 2)
OTHERS = (
    Column("val_loss", "loss", 3),
    Column("calibration_error", "calibration error", 3),
    Column("lambda_max", "lambda_max", 2),
    Column("train_top1", "training top-1", 1),
)


@dataclass(frozen=True)
class Kept:
    """A study and the lines of its runs.csv."""

    study: Study
    rows: tuple[dict[str, str], ...]

    def values(self, arm: str, column: Column) -> np.ndarray:
        """Of an arm's runs in the order of the study's seeds, float64."""
        found = {int(row["seed"]): row[column.key] for row in self.rows if row["arm"] == arm}
        return np.array([float(found[seed]) for seed in self.study.seeds])


def kept(name: str) -> Kept:
    """The study of that name, with its runs."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return Kept(load_study(STUDIES / f"{name}.yaml"), tuple(csv.DictReader(file)))


def header_lines(found: Kept) -> Iterator[str]:
    """Comments for the head of a study: arms by seed, then the paired differences."""
    width = max(map(len, found.study.arms)) + 2
    seeds = "".join(f"{seed:7}" for seed in found.study.seeds)
    yield f"#   {'':{width}}{seeds}    mean  " + "  ".join(column.name for column in OTHERS)
    for arm in found.study.arms:
        top1 = found.values(arm, TOP1)
        cells = "".join(f"{value:7.2f}" for value in (*top1, top1.mean()))
        means = (f"{found.values(arm, c).mean():{len(c.name)}.{c.digits}f}" for c in OTHERS)
        yield f"#   {arm:{width}}{cells}  " + "  ".join(means)
    for arm in found.study.arms:
        if len(found.study.seeds) > 1:
            yield f"#   {arm}, another seed: {another_seed(found.values(arm, TOP1))}"
    for pair in found.study.comparisons:
        told = f"#   {pair.of} - {pair.against}: {difference(found, pair.of, pair.against, TOP1)}"
        if len(found.study.seeds) > 1:
            pairs = found.values(pair.of, TOP1) - found.values(pair.against, TOP1)
            told += f", another seed: {another_seed(pairs, sign='+')}"
        yield told


def benchmark_lines(found: Kept) -> Iterator[str]:
    """Rows for BENCHMARKS.md: arms, then the paired differences."""
    for arm in found.study.arms:
        (passes,) = {float(row["image_passes"]) for row in found.rows if row["arm"] == arm}
        top1, *means = (f"{found.values(arm, c).mean():.{c.digits}f}" for c in (TOP1, *OTHERS[:3]))
        if len(found.study.seeds) > 1:
            top1 += f" ({another_seed(found.values(arm, TOP1))})"
        yield f"| {arm} | {passes:g} | {' | '.join((top1, *means))} |"
    for pair in found.study.comparisons:
        cells = (difference(found, pair.of, pair.against, c) for c in (TOP1, *OTHERS[:3]))
        yield f"| {pair.of} - {pair.against} | {' | '.join(cells)} |"


def difference(found: Kept, of: str, against: str, column: Column) -> str:
    """Mean difference, paired by seed, with the 95 % interval of Student's t; one pair has none."""
    one, other = found.values(of, column), found.values(against, column)
    digits = column.digits
    mean = f"{np.mean(one - other):+.{digits}f}"
    if len(one) == 1:
        return mean
    low, high = stats.ttest_rel(one, other).confidence_interval(0.95)
    return f"{mean} ({low:+.{digits}f} to {high:+.{digits}f})"


def another_seed(values: np.ndarray, *, sign: str = "") -> str:
    """Where one more value lies with 95 % probability, if all (n,) are of one normal distribution.

    The prediction interval ``mean +- t s sqrt(1 + 1/n)``; that of the mean alone is narrower by sqrt(n + 1).
    """
    spread = values.std(ddof=1) * np.sqrt(1 + 1 / len(values))
    reach = spread * stats.t.ppf(0.975, len(values) - 1)
    low, high = values.mean() - reach, values.mean() + reach
    return f"{low:{sign}.2f} to {high:{sign}.2f}"


if __name__ == "__main__":
    shown = kept(sys.argv[1])
    print("\n".join((*header_lines(shown), *benchmark_lines(shown))))
