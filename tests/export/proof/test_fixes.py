"""A failed count of changed answers is explained where the cause is known, and only there."""

from saq_qat.recipe.schema import Thresholds
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.fixes import flip_fix
from saq_qat_export.proof.predictions import Agreement, agreement_comparisons


def comparisons(flips: int) -> list[Comparison]:
    return agreement_comparisons(Agreement(100, 90.0, 90.0, 90.0, 0, flips, ()), Thresholds())


def test_flips_without_a_deploy_stage_are_laid_to_the_rounding_of_biases() -> None:
    fix = flip_fix(comparisons(13), biases_learned=False)
    assert "biases were rounded" in fix and "{kind: deploy, epochs: 1" in fix


def test_other_outcomes_get_no_such_advice() -> None:
    assert flip_fix(comparisons(13), biases_learned=True) == ""
    assert flip_fix(comparisons(0), biases_learned=False) == ""
    other = Comparison("integer reference = ONNX Runtime", True, False, 10, 1, "")
    assert flip_fix([*comparisons(0), other], biases_learned=False) == ""


def test_the_comparison_says_how_many_answers_changed_and_how_many_may() -> None:
    detail = comparisons(13)[-1].detail
    assert "13.0 % of answers differ" in detail and "5 % and a loss of 1 points are allowed" in detail
