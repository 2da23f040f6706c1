"""A failed count of changed answers is explained where the cause is known, and only there."""

from saq_qat.recipe.schema import Thresholds
from saq_qat_export.proof.ladder import Agreement, agreement_rungs
from saq_qat_export.proof.remedies import flip_remedy
from saq_qat_export.proof.rungs import Rung


def rungs(flips: int) -> list[Rung]:
    return agreement_rungs(Agreement(100, 90.0, 90.0, 90.0, 0, flips, ()), Thresholds())


def test_flips_without_a_deploy_stage_are_laid_to_the_rounding_of_biases() -> None:
    remedy = flip_remedy(rungs(13), biases_learned=False)
    assert "biases were rounded" in remedy and "{kind: deploy, epochs: 1" in remedy


def test_other_outcomes_get_no_such_advice() -> None:
    assert flip_remedy(rungs(13), biases_learned=True) == ""
    assert flip_remedy(rungs(0), biases_learned=False) == ""
    other = Rung("integer reference = ONNX Runtime", True, False, 10, 1, "")
    assert flip_remedy([*rungs(0), other], biases_learned=False) == ""


def test_the_rung_says_how_many_answers_changed_and_how_many_may() -> None:
    detail = rungs(13)[-1].detail
    assert "13.0 % of answers differ" in detail and "5 % and a loss of 1 points are allowed" in detail
