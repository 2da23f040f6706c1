"""Accuracy against the radius rho of the perturbation, over several runs (paper Figure A)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from saq_qat.errors import RecipeError
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import DescentStage, Recipe
from saq_qat.recipe.schema.method import Sam, Saq
from saq_qat.train.choose import CheckpointName, choose_checkpoint
from saq_qat.train.folder import RESOLVED

__all__ = ["RadiusPoint", "radius_points"]

_FREE = ("name", "seed")


@dataclass(frozen=True)
class RadiusPoint:
    """One run.

    Attributes:
        checkpoint: ``last`` or ``best``.
        rho: None for a run without a perturbation: the dashed line.
        top1: percent of the validation images; of the deploy view where ``deployed``.
    """

    run: str
    checkpoint: CheckpointName
    checkpoint_sha256: str
    method: str
    rho: float | None
    seed: int
    top1: float
    deployed: bool


def radius_points(runs: Sequence[Path], checkpoint: CheckpointName | None = None) -> tuple[RadiusPoint, ...]:
    """The runs by rho, those without one first.

    Args:
        checkpoint: whose accuracy; None: the one that each run's commands take, which is the best by the
            images that judge it.

    Raises:
        RecipeError: they differ in more than method, radius, seed and name, or one was never judged.
        ArtifactError: a folder is no run, or its checkpoint is damaged.
    """
    recipes = [load_recipe(run / RESOLVED) for run in runs]
    _check_alike(runs, recipes)
    points = [_point(run, recipe, checkpoint) for run, recipe in zip(runs, recipes, strict=True)]
    return tuple(sorted(points, key=lambda point: (point.rho is not None, point.rho or 0.0, point.seed)))


def _point(run: Path, recipe: Recipe, checkpoint: CheckpointName | None) -> RadiusPoint:
    taken = choose_checkpoint(run, checkpoint).taken
    top1 = taken.top1 if taken.deploy_top1 is None else taken.deploy_top1
    if top1 is None:
        raise RecipeError(
            f"{run}: its checkpoint was saved within an epoch and not judged. Train it to the end."
        )
    method = _method(recipe)
    rho = method.rho if isinstance(method, Saq | Sam) else None
    deployed = taken.deploy_top1 is not None
    return RadiusPoint(str(run), taken.name, taken.sha256, str(method.kind), rho, recipe.seed, top1, deployed)


def _method(recipe: Recipe) -> Any:
    """Of the last stage that moves weights, the deploy stage apart, which seldom has one of its own."""
    moving = [stage for stage in recipe.train.stages if isinstance(stage, DescentStage)]
    if not moving:
        raise RecipeError(f"{recipe.name}: no stage of this recipe trains, so it has no radius to compare.")
    return next((s for s in reversed(moving) if s.kind != "deploy"), moving[-1]).method


def _check_alike(runs: Sequence[Path], recipes: Sequence[Recipe]) -> None:
    """Each against each: a plain method has no fields in which two others could be seen to differ."""
    compared = [(run, _compared(recipe)) for run, recipe in zip(runs, recipes, strict=True)]
    for (first, one), (run, other) in combinations(compared, 2):
        differing = list(_differences(one, other))
        if differing:
            raise RecipeError(
                "Runs that show what rho does must be alike in all else but seed and name; "
                f"{run} differs from {first} in:\n" + "\n".join(f"  {line}" for line in differing)
            )


def _compared(recipe: Recipe) -> dict[str, Any]:
    """All values but those that may differ: methods lose their radius, and plain ones say nothing at all."""
    value: dict[str, Any] = recipe.model_dump()
    for stage in value["train"]["stages"]:
        method = stage.get("method")
        if method is not None:
            stage["method"] = {k: v for k, v in method.items() if k not in ("rho", "kind")}
    return value


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    if path in _FREE or one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        # A plain method has none of the fields of the others.
        keys = one.keys() & other.keys() if path.endswith(".method") else dict.fromkeys([*one, *other])
        for key in keys:
            yield from _differences(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, (mine, its) in enumerate(zip(one, other, strict=True)):
            yield from _differences(mine, its, f"{path}.{index}")
    else:
        yield f"{path}: {one} and {other}"
