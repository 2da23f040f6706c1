"""Whether a study's result is what its runs say: files are changed, and runs go on."""

import math
from dataclasses import fields, is_dataclass
from pathlib import Path

from saq_qat.analysis.study.arms import comparison_kind, image_passes
from saq_qat.analysis.study.quantities import RunResult
from saq_qat.analysis.study.result import (
    RESULT_FILE,
    RUN_AGAIN,
    ArmResult,
    ComparisonResult,
    StudyResult,
    arm_result,
    compared,
)
from saq_qat.errors import ArtifactError
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.choose import standing_of
from saq_qat.train.folder import RESOLVED
from saq_qat_runtime.bundle.result_files import short_digest

__all__ = ["check_result"]

_ROUNDING = 1e-9


def check_result(result: StudyResult, folder: Path) -> None:
    """Whether a study's statistics are those of its runs, and its runs hold what was measured.

    What arms cost, and so which comparisons are at equal epochs or compute, is held against the recipes of
    the runs that lie in the folder.

    Raises:
        ArtifactError: a run holds another checkpoint than the one that was measured, or an arm or comparison
            is not what its runs give.
        RecipeError: the recipe of a run is damaged.
    """
    for run in result.runs:
        _check_run(run, folder, result.checkpoint)
    recipes = _recipes(result, folder)
    arms = tuple(_arm_again(arm, result, recipes) for arm in result.arms)
    pairs = tuple(_compared_again(pair, result, recipes) for pair in result.comparisons)
    if not (_alike(arms, result.arms) and _alike(pairs, result.comparisons)):
        raise ArtifactError(
            f"{folder / RESULT_FILE}: its arms or comparisons are not those of its runs, so it was changed "
            f"since. {RUN_AGAIN}"
        )


def _recipes(result: StudyResult, folder: Path) -> dict[str, Recipe]:
    """By arm, of one of its runs; of those arms that have a run here."""
    places = {run.arm: folder / run.run / RESOLVED for run in result.runs if run.run is not None}
    return {arm: load_recipe(path) for arm, path in places.items() if path.is_file()}


def _arm_again(arm: ArmResult, result: StudyResult, recipes: dict[str, Recipe]) -> ArmResult:
    recipe = recipes.get(arm.name)
    return arm_result(
        arm.name,
        recipe=arm.recipe,
        overrides=arm.overrides,
        differs_in=arm.differs_in,
        image_passes=arm.image_passes if recipe is None else image_passes(recipe),
        runs=result.runs,
    )


def _compared_again(
    pair: ComparisonResult, result: StudyResult, recipes: dict[str, Recipe]
) -> ComparisonResult:
    of, against = recipes.get(pair.of), recipes.get(pair.against)
    kind = pair.kind if of is None or against is None else comparison_kind(of, against)
    return compared(pair.of, pair.against, kind, result.runs)


def _alike(one: object, other: object) -> bool:
    """Equal but for the last digits, which differ among versions of NumPy and SciPy."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    if is_dataclass(one) and type(one) is type(other):
        return all(_alike(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return one == other


def _check_run(run: RunResult, folder: Path, checkpoint: str) -> None:
    if run.measured is None or run.run is None or not (folder / run.run).is_dir():
        return
    place, measured = folder / run.run, run.measured.checkpoint_sha256
    standing = standing_of(place, "best" if checkpoint == "best" else "last")
    if standing is None or standing.sha256 != measured:
        now = "none" if standing is None else short_digest(standing.sha256)
        raise ArtifactError(
            f"{place}: {RESULT_FILE} is about its checkpoint {short_digest(measured)}, and it has {now} now. "
            f"{RUN_AGAIN}"
        )
