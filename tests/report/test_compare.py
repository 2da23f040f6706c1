"""Runs side by side: differences are those of their figures, and unlike machines are named."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.errors import RecipeError
from saq_qat.report.collect import Collected
from saq_qat.report.compare import (
    class_differences,
    differences,
    figures,
    outcome,
    recipe_differences,
    short_names,
    unlike_machines,
)
from saq_qat.report.evaluation import Evaluation
from saq_qat.report.html.compare_page import comparison_page
from saq_qat.report.html.pareto import frontier, pareto_charts
from saq_qat.report.per_class import ClassAccuracy
from saq_qat.train.evaluate import Accuracy
from tests.report.conftest import measured, proof


@pytest.fixture
def pair(complete: Collected) -> dict[str, Collected]:
    """A run, and one that is twice as fast and 2.5 points worse."""
    worse = dataclasses.replace(proof().agreement, engine_top1=85.0)
    faster = dataclasses.replace(
        complete,
        bench=measured(5.0),
        proof=dataclasses.replace(proof(), agreement=worse),
        recipe=complete.recipe.model_copy(update={"seed": 7}),
    )
    return {"slow": complete, "fast": faster}


def test_differences_are_told_from_the_first_run(pair: dict[str, Collected]) -> None:
    (row,) = differences(pair).rows
    assert row == ("fast", "-2.50", "0.50x", "1.00x")
    rows = {str(row[0]): row[1:] for row in figures(pair).rows}
    assert rows["verdict"] == ("PASS", "PASS")
    assert rows["ONNX Runtime top-1 %"] == ("87.50", "85.00")


def test_only_what_recipes_say_differently_is_listed(pair: dict[str, Collected]) -> None:
    table = recipe_differences(pair)
    assert table is not None and table.rows == (("seed", "0", "7"),)
    assert recipe_differences({"a": pair["slow"], "b": pair["slow"]}) is None


def test_latencies_of_unlike_machines_come_with_a_warning(pair: dict[str, Collected]) -> None:
    assert unlike_machines(pair) == ""
    bench = dataclasses.replace(measured(), threads=4)
    said = unlike_machines(pair | {"other": dataclasses.replace(pair["fast"], bench=bench)})
    assert "unlike machines" in said and "4 threads" in said


def test_runs_of_one_recipe_are_told_apart(complete: Collected) -> None:
    other = dataclasses.replace(complete, run=complete.run.parent / "other")
    assert short_names([complete, other]) == ("tiny run", "tiny other")
    assert len(set(short_names([complete, complete, complete]))) == 3


def test_the_class_that_lost_most_comes_first(complete: Collected) -> None:
    def run(*scores: float) -> Collected:
        classes = tuple(ClassAccuracy(name, 4, None, s) for name, s in zip("abc", scores, strict=True))
        about = (2, "2026-01-01", "0" * 64, None, "best", 8, "quantized", Accuracy(1, 1, 1, 12), None)
        return dataclasses.replace(complete, evaluation=Evaluation(*about, classes, (), "0" * 64))  # type: ignore[arg-type]  # fields of several types

    table = class_differences({"first": run(90, 80, 70), "second": run(95, 50, 60)}, most=2)
    assert table is not None
    assert table.rows == (("b", "80.00", "50.00"), ("c", "70.00", "60.00")) and "2 of 3" in table.note
    assert class_differences({"first": complete, "second": run(1, 2, 3)}, most=2) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_frontier_is_what_nothing_beats_in_both(points: list[tuple[int, int]]) -> None:
    kept = frontier([(float(cost), float(accuracy)) for cost, accuracy in points])
    for cost, accuracy in points:
        beaten = any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points)
        assert ((cost, accuracy) in kept) == (not beaten)


def test_a_pareto_picture_needs_two_runs_that_know_both(pair: dict[str, Collected]) -> None:
    outcomes = [outcome(name, known) for name, known in pair.items()]
    assert [picture.title for picture in pareto_charts(outcomes)] == [
        "Accuracy and latency",
        "Accuracy and size",
    ]
    unmeasured = dataclasses.replace(outcomes[0], median_ms=None)
    assert [p.title for p in pareto_charts([unmeasured, outcomes[1]])] == ["Accuracy and size"]


def test_one_run_or_too_many_are_refused(complete: Collected) -> None:
    for runs in ([complete], [complete] * 13):
        with pytest.raises(RecipeError, match="2 to 12 runs"):
            comparison_page(runs)


def test_a_comparison_stays_small_however_much_its_runs_hold(
    pair: dict[str, Collected], tmp_path: Path
) -> None:
    whole = comparison_page(list(pair.values()))
    assert len(comparison_page(list(pair.values()), limit=len(whole) - 1).encode()) < len(whole) / 2
