"""Arms resolved to recipes, and whether they differ in more than they say."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from typing import Literal

from saq_qat.analysis.study.schema import Study, set_by_the_study
from saq_qat.errors import RecipeError
from saq_qat.recipe.flat import flat
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import DescentStage, Recipe, Sam, Saq

__all__ = ["Kind", "ResolvedArm", "comparison_kind", "image_passes", "passes_per_step", "resolve_arms"]

Kind = Literal["equal epochs", "equal compute", "neither"]

_SHOWN = 12
_COMPUTE_TOLERANCE = 0.02


@dataclass(frozen=True)
class _Guard:
    """Keys in which arms must not differ, overrides or not, unless one of them declares it by this name."""

    name: str
    what: str
    patterns: tuple[str, ...]


_GUARDS = (
    _Guard("data", "data, its order and augmentation", ("data", "train.batch_size", "train.mixing")),
    _Guard("weights", "initial weights", ("model",)),
    _Guard(
        "schedule",
        "length of the schedule in steps",
        (
            "train.stages.*.kind",
            "train.stages.*.*epochs",
            "train.stages.*.batches",
            "train.batch_size",
            "data.train_limit",
            "data.train_size",
            "data.held_out",
        ),
    ),
    _Guard(
        "calibration",
        "calibration of the quantizers",
        ("quant.calibration_batches", "quant.weight.initialise", "quant.activation.initialise"),
    ),
)
_COST_OF_A_PASS = (
    "model",
    "train.teacher",
    "data.kind",
    "data.root",
    "data.*folder",
    "data.*split",
    "data.image_size",
    "data.train_limit",
    "data.train_size",
    "data.held_out",
    "train.precision",
)
"""Keys that decide what one pass over the training images costs: arms that differ there share no compute."""
_OF_NO_EFFECT = ("name", "seed", "data.workers")
"""Keys that the study sets, and those that change no number."""


@dataclass(frozen=True)
class ResolvedArm:
    """An arm with all that `train` needs to hear.

    Attributes:
        path: of its recipe.
        overrides: all of them, in order, but for name and seed.
        recipe: what these resolve to, with the base recipe's seed.
        overridden: keys that its own overrides set.
        declared: what it declares to differ in: names of guards, and keys.
    """

    name: str
    path: Path
    overrides: tuple[str, ...]
    recipe: Recipe
    overridden: tuple[str, ...]
    declared: tuple[str, ...]


def resolve_arms(study: Study, folder: Path, overrides: tuple[str, ...] = ()) -> dict[str, ResolvedArm]:
    """Every arm of a study whose file lies in ``folder``, checked against all others.

    Args:
        overrides: for all arms, before their own.

    Raises:
        RecipeError: a recipe is wrong; arms differ in more than they name; or an arm is not given the
            compute it claims. Names every such key and how to declare it.
    """
    problem = set_by_the_study(overrides)
    if problem is not None:
        raise RecipeError(f"override of all arms: {problem}")
    arms = {name: _resolved(study, name, folder, overrides) for name in study.arms}
    unknown = list(_unknown_declarations(study, arms))
    if unknown:
        raise RecipeError("\n".join(unknown))
    problems = list(dict.fromkeys(_undeclared(arms)))
    if problems:
        shown = problems[:_SHOWN]
        more = f"\n  and {len(problems) - _SHOWN} more" * (len(problems) > _SHOWN)
        raise RecipeError(
            "Arms may differ only in what they name, or their difference is no evidence:\n"
            + "\n".join(f"  {problem}" for problem in shown)
            + more
        )
    unequal = list(_unequal_compute(study, arms))
    if unequal:
        raise RecipeError("\n".join(unequal))
    return arms


def _resolved(study: Study, name: str, folder: Path, overrides: tuple[str, ...]) -> ResolvedArm:
    arm = study.arms[name]
    shared = (*study.overrides, *overrides)
    path = folder / (arm.recipe or study.recipe)
    try:
        recipe = load_recipe(path, (*shared, *arm.overrides))
    except RecipeError as error:
        load_recipe(path, shared)  # raises what is wrong without the arm
        raise RecipeError("\n".join(f"arms.{name}: {line}" for line in str(error).splitlines())) from None
    return ResolvedArm(
        name=name,
        path=path,
        overrides=(*shared, *arm.overrides),
        recipe=recipe,
        overridden=tuple(text.partition("=")[0].strip() for text in arm.overrides),
        declared=(*arm.differs_in, *(["schedule"] if arm.equal_compute is not None else [])),
    )


def _unknown_declarations(study: Study, arms: Mapping[str, ResolvedArm]) -> Iterator[str]:
    """Declarations that name neither a guard nor a key, and would permit nothing or everything."""
    guards = [guard.name for guard in _GUARDS]
    keys = {key for arm in arms.values() for key in flat(arm.recipe.model_dump())}
    for name, arm in study.arms.items():
        for declared in arm.differs_in:
            parts = declared.split(".")
            if declared not in guards and not any(key.split(".")[: len(parts)] == parts for key in keys):
                yield (
                    f"arms.{name}.differs_in: {declared!r} is no key of the recipe, and none of "
                    f"{', '.join(guards)}. Name the key that differs, as train.stages.0.lr."
                )


def _undeclared(arms: Mapping[str, ResolvedArm]) -> Iterator[str]:
    flattened = {name: flat(arm.recipe.model_dump()) for name, arm in arms.items()}
    for a, b in combinations(arms.values(), 2):
        one, other = flattened[a.name], flattened[b.name]
        for key in dict.fromkeys([*one, *other]):
            if one.get(key) == other.get(key) or key in _OF_NO_EFFECT:
                continue
            problem = _problem(key, a, b)
            if problem is not None:
                values = f"{one.get(key, 'absent')} in {a.name!r}, {other.get(key, 'absent')} in {b.name!r}"
                yield f"{key} is {values}{problem}"


def _problem(key: str, a: ResolvedArm, b: ResolvedArm) -> str | None:
    """Why two arms must not differ in ``key``, and what to declare; None if they may."""
    declared = (*a.declared, *b.declared)
    guards = [g for g in _GUARDS if any(_stands_below(key, p) for p in g.patterns)]
    own_names = {guard.name for guard in _GUARDS}  # one of which, data, is a section's name too
    keys = [name for name in declared if name not in own_names]
    named = keys if guards else [*keys, *a.overridden, *b.overridden]
    missing = [guard for guard in guards if guard.name not in declared]
    if any(_stands_below(key, name) for name in named) or (guards and not missing):
        return None
    changed = a if any(_stands_below(key, name) for name in a.overridden) else b
    at = f"If it is meant: arms.{changed.name}.differs_in:"
    if not missing:
        return f", and neither names it. {at} [{key}]"
    what = " and another ".join(guard.what for guard in missing)
    return f": another {what}. {at} [{', '.join(guard.name for guard in missing)}]"


def _stands_below(key: str, pattern: str) -> bool:
    """Whether ``key`` is what a dotted pattern names, or a part of it."""
    parts, wanted = key.split("."), pattern.split(".")
    return len(parts) >= len(wanted) and all(map(fnmatchcase, parts, wanted))


def passes_per_step(method: object) -> float:
    """Forward and backward passes of a step: 1, or 2 for SAM and SAQ, on average less if it is efficient."""
    if isinstance(method, Sam):
        return 2.0
    if not isinstance(method, Saq) or method.objective == "vql":
        return 1.0
    return 2.0 if method.efficient is None else 1.0 + 1.0 / method.efficient.tau


def image_passes(recipe: Recipe) -> float:
    """How often all stages of a recipe pass each training image through the network, forward and back."""
    return _passes(recipe.train.stages)


def _passes(stages: Iterable[object]) -> float:
    return math.fsum(
        stage.epochs * passes_per_step(stage.method) for stage in stages if isinstance(stage, DescentStage)
    )


def _compared_passes(one: Recipe, other: Recipe) -> tuple[float, float]:
    """Passes of each in the stages between those that both begin and end with alike.

    What they share says nothing about the two, and beside a long float stage any other would look equal.
    """
    own, theirs = list(one.train.stages), list(other.train.stages)
    for end in (0, -1):
        while own and theirs and own[end] == theirs[end]:
            own.pop(end)
            theirs.pop(end)
    return _passes(own), _passes(theirs)


def comparison_kind(of: Recipe, against: Recipe) -> Kind:
    """Whether two recipes have the same schedule, or else as many passes over images where they differ.

    Neither where a pass of the one is not a pass of the other: another network, teacher, or set of images.
    """
    if _cost_differs(of, against):
        return "neither"
    if _epochs(of) == _epochs(against):
        return "equal epochs"
    return "equal compute" if _equal(*_compared_passes(of, against)) else "neither"


def _cost_differs(one: Recipe, other: Recipe) -> list[str]:
    """Keys by which a pass of one recipe costs another amount than a pass of the other."""
    own, theirs = flat(one.model_dump()), flat(other.model_dump())
    return [
        key
        for key in dict.fromkeys([*own, *theirs])
        if own.get(key) != theirs.get(key) and any(_stands_below(key, p) for p in _COST_OF_A_PASS)
    ]


def _epochs(recipe: Recipe) -> int:
    return sum(s.epochs for s in recipe.train.stages if isinstance(s, DescentStage))


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_COMPUTE_TOLERANCE)


def _unequal_compute(study: Study, arms: Mapping[str, ResolvedArm]) -> Iterator[str]:
    for name, arm in study.arms.items():
        if arm.equal_compute is None:
            continue
        recipe, other = arms[name].recipe, arms[arm.equal_compute].recipe
        differing = _cost_differs(recipe, other)
        if differing:
            yield (
                f"arms.{name}.equal_compute: {', '.join(differing)} differ from those of "
                f"{arm.equal_compute!r}, so that a pass over the images does not cost the same. Compare them "
                "without that claim."
            )
            continue
        own, claimed = _compared_passes(recipe, other)
        if not _equal(own, claimed):
            yield (
                f"arms.{name}.equal_compute: its stages that differ pass each image {own:g} times, and those "
                f"of {arm.equal_compute!r} {claimed:g} times, which is not within {_COMPUTE_TOLERANCE:.0%}. "
                "Change its epochs, or declare differs_in: [schedule] and claim nothing."
            )
