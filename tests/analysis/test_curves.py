"""What is read from logs: curves of a training, and accuracy by rho."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saq_qat.analysis.curves import training_curves
from saq_qat.analysis.labels import run_labels
from saq_qat.analysis.radius import radius_points
from saq_qat.errors import RecipeError
from saq_qat.recipe.load import dump_recipe, parse_recipe
from tests.train.small_recipe import SMALL_RECIPE

RECIPE = SMALL_RECIPE.replace("lr: 0.1}", "lr: 0.1, method: {kind: saq, rho: 0.3}}")


def step(loss: float, **values: float) -> dict[str, Any]:
    return {"event": "step", "loss": loss, **values}


def test_epochs_hold_the_means_of_their_own_steps() -> None:
    lines = [
        {"event": "stage", "kind": "quantized"},
        step(2.0, cosine=0.5, step_cosine=0.1),
        step(1.0, cosine=0.7),
        step(1.5, step_cosine=0.3),
        {"event": "epoch", "stage": "quantized", "epoch": 1, "loss": 1.5, "val_loss": 1.7, "top1": 40.0},
        step(1.0),
        {"event": "epoch", "stage": "deploy", "epoch": 1, "loss": 1.0, "val_loss": None},
    ]
    first, second = training_curves(lines)
    assert (first.number, first.stage, first.val_loss, first.val_top1) == (1, "quantized", 1.7, 40.0)
    assert first.cosine == pytest.approx(0.6) and first.step_cosine == pytest.approx(0.2)
    assert first.fluctuation == pytest.approx((1.0 + 0.5) / 2)
    assert (second.number, second.val_loss, second.cosine, second.fluctuation) == (2, None, None, None)


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run's folder with a resolved recipe, and a checkpoint of this accuracy."""
    accuracies: dict[Path, tuple[float | None, float | None]] = {}

    def make(*overrides: str, top1: float | None = 50.0, deployed: float | None = 49.0) -> Path:
        run = tmp_path / f"run{len(accuracies)}"
        run.mkdir()
        (run / "resolved.yaml").write_text(dump_recipe(parse_recipe(RECIPE, "small", overrides)))
        accuracies[run] = (top1, deployed)
        return run

    def chosen(run: Path, asked: str | None) -> Any:
        top1, deployed = accuracies[run]
        if asked == "last" and deployed is not None:
            deployed -= 2.0
        taken = {"name": asked or "best", "sha256": "0" * 64, "top1": top1, "deploy_top1": deployed}
        return SimpleNamespace(taken=SimpleNamespace(**taken))

    monkeypatch.setattr("saq_qat.analysis.radius.choose_checkpoint", chosen)
    return make


METHOD = "train.stages.0.method"


def test_runs_are_sorted_by_rho_and_those_without_one_come_first(make_run: Any) -> None:
    runs = [
        make_run(f"{METHOD}.rho=0.8", deployed=60.0),
        make_run("seed=1", "name=other"),
        make_run(f"{METHOD}={{kind: plain}}", top1=45.0, deployed=None),
    ]
    points = radius_points(runs)
    assert [(p.rho, p.seed, p.top1, p.deployed) for p in points] == [
        (None, 0, 45.0, False),
        (0.3, 1, 49.0, True),
        (0.8, 0, 60.0, True),
    ]
    assert [p.method for p in points] == ["plain", "saq", "saq"]


def test_accuracies_are_of_the_checkpoint_that_was_asked_for(make_run: Any) -> None:
    runs = [make_run(), make_run(f"{METHOD}.rho=0.8", deployed=60.0)]
    for asked, taken, expected in ((None, "best", [49.0, 60.0]), ("last", "last", [47.0, 58.0])):
        points = radius_points(runs, asked)  # type: ignore[arg-type]  # names of checkpoints
        assert [point.top1 for point in points] == expected
        assert {point.checkpoint for point in points} == {taken}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.stages.0.lr=0.5", r"train\.stages\.0\.lr: 0\.1 and 0\.5"),
        (f"{METHOD}.objective=mean", r"method\.objective: sum and mean"),
        ("quant.weight.bits=2", r"quant\.weight\.bits: 4 and 2"),
        ("train.stages.0.epochs=3", r"epochs: 1 and 3"),
    ],
)
def test_runs_that_differ_in_more_than_rho_are_refused(make_run: Any, override: str, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        radius_points([make_run(), make_run(override)])


def test_runs_that_a_plain_one_stands_between_are_held_against_each_other(make_run: Any) -> None:
    plain = make_run(f"{METHOD}={{kind: plain}}")
    with pytest.raises(RecipeError, match=r"method\.objective: sum and mean"):
        radius_points([plain, make_run(), make_run(f"{METHOD}.objective=mean")])


def test_a_run_that_was_never_judged_is_refused(make_run: Any) -> None:
    with pytest.raises(RecipeError, match="not judged"):
        radius_points([make_run(top1=None, deployed=None)])


def test_labels_are_as_short_as_they_can_be(make_run: Any) -> None:
    one, two = make_run(), make_run("name=other")
    assert list(run_labels([one, two]).values()) == ["small", "other"]
    three = make_run("seed=1")
    assert list(run_labels([one, three]).values()) == ["small, seed 0", "small, seed 1"]
    four = make_run()
    assert list(run_labels([one, four]).values()) == ["small, run0", "small, run3"]
