"""Studies whose runs are kept are told with the numbers of these runs, everywhere."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from saq_qat.analysis.study.arms import resolve_arms
from saq_qat.recipe.load import load_recipe
from tests.docs.study_tables import (
    OTHERS,
    RESULTS,
    STUDIES,
    TOP1,
    another_seed,
    benchmark_lines,
    difference,
    header_lines,
    kept,
)

ARMS = {"sgd": "plain", "saq": "saq"}
"""The arm of the studies that each of a pair of recipes is."""
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


def test_a_network_that_stands_in_two_studies_has_the_same_numbers_in_both() -> None:
    seen: dict[str, tuple[str, list[str]]] = {}
    twice = 0
    for name in NAMES:
        for row in kept(name).rows:
            numbers = [row[column.key] for column in (TOP1, *OTHERS)] + [row["flip_rate"], row["sharpness"]]
            before, those = seen.setdefault(row["checkpoint_sha256"], (name, numbers))
            assert those == numbers, f"{row['arm']} of seed {row['seed']} in {before} and {name}"
            twice += before != name
    assert twice > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_head_of_a_study_and_benchmarks_show_what_its_runs_give(name: str) -> None:
    found = kept(name)
    head = (STUDIES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert [line for line in header_lines(found) if line.rstrip() not in head] == []
    benchmarks = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in benchmark_lines(found) if line not in benchmarks] == []


def test_another_seed_is_a_prediction_and_wider_than_the_interval_of_the_mean() -> None:
    # mean 1, s 1, t of 2 degrees 4.3027, sqrt(4 / 3)
    assert another_seed(np.array([0.0, 1.0, 2.0])) == "-3.97 to 5.97"
    assert another_seed(np.array([0.0, 1.0, 2.0]), sign="+") == "-3.97 to +5.97"


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("cifar10-small-w2a2-final", "W2A2"),
        ("cifar10-small-w3a3-final", "W3A3"),
        ("cifar10-small-w4a4-final", "W4A4"),
        ("cifar100-small-w2a2-final", "CIFAR-100, W2A2"),
        ("efficientnet-lite0-imagenette-small-w4a4-final", "EfficientNet-Lite0 to Imagenette, W4A4"),
    ],
)
def test_readme_quotes_what_the_runs_give(name: str, asked: str) -> None:
    found = kept(name)
    start = f"| does SAQ pay? {asked} |"
    (told,) = (line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(start))
    for against in ("plain", "plain-twice"):
        assert difference(found, "saq", against, TOP1) in told
    losses = [f"{found.values(arm, OTHERS[0]).mean():.3f}" for arm in ("saq", "plain", "plain-twice")]
    assert "{}, {} and {}".format(*losses) in told
    for arm in ("saq", "plain", "plain-twice"):
        values = found.values(arm, TOP1)
        assert f"{values.mean():.2f} ({another_seed(values)})" in told


def test_readme_quotes_the_study_of_all_images() -> None:
    found = kept("cifar10-w2a2-final")
    saq, plain, twice = (f"{found.values(arm, TOP1).mean():.2f}" for arm in ("saq", "plain", "plain-twice"))
    told = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"one seed: SAQ {saq}, plain {plain}, twice the epochs {twice}." in told


@pytest.mark.parametrize("method", ARMS)
@pytest.mark.parametrize(
    ("data", "bits"), [("cifar10", "w2a2"), ("cifar10", "w3a3"), ("cifar10", "w4a4"), ("cifar100", "w2a2")]
)
def test_a_recipe_is_the_arm_whose_runs_its_head_quotes(data: str, bits: str, method: str) -> None:
    found, path = kept(f"{data}-small-{bits}-final"), ROOT / f"configs/{data}/resnet20-{bits}-{method}.yaml"
    arm = resolve_arms(found.study, STUDIES)[ARMS[method]].recipe
    recipe = load_recipe(path)
    assert recipe.train.stages == arm.train.stages
    assert (recipe.model, recipe.quant, recipe.train.optimizer) == (arm.model, arm.quant, arm.train.optimizer)
    head = path.read_text(encoding="utf-8").partition("\nversion:")[0].replace("\n# ", " ")
    values = found.values(ARMS[method], TOP1)
    assert f"deployed top-1 {values.mean():.2f} % on the 10,000 test images" in head
    assert f"another seed: {another_seed(values)} (95 %)" in head
    if method == "sgd":
        twice = found.values("plain-twice", TOP1)
        assert f"twice the epochs {twice.mean():.2f} %, another seed: {another_seed(twice)}" in head
