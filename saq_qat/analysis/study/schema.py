"""The study file: a base recipe, arms that change it, seeds, and pairs of arms to compare."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError

from saq_qat.errors import RecipeError
from saq_qat.recipe.describe import describe
from saq_qat.recipe.load import as_tuples, read_text
from saq_qat.recipe.schema.base import BrokenRule, Count, Positive, Section, WholeNumber
from saq_qat.recipe.yaml_tree import read_yaml

__all__ = ["Arm", "Comparison", "Measure", "Study", "load_study", "set_by_the_study"]

Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _as_texts(overrides: object) -> object:
    """``{key: value, ...}`` as `train` takes it: JSON is YAML, so values of any depth keep their types."""
    if not isinstance(overrides, dict):
        return overrides
    return tuple(f"{key}={json.dumps(value)}" for key, value in overrides.items())


Overrides = Annotated[tuple[str, ...], BeforeValidator(_as_texts)]
"""``key=value`` as on the command line of `train`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_OVERRIDES = "Values to set in the recipe: [key=value, ...] as train takes them, or {key: value}."


def set_by_the_study(overrides: Sequence[str]) -> str | None:
    """What is wrong with overrides of keys that a study sets itself; None if there are none."""
    keys = (text.partition("=")[0].strip() for text in overrides)
    key = next((key for key in keys if key in ("seed", "name")), None)
    return None if key is None else f"{key!r} is set by the study: by its seeds, and by the arms' names"


def _broken_overrides(overrides: Sequence[str]) -> Iterator[BrokenRule]:
    problem = set_by_the_study(overrides)
    if problem is not None:
        yield "overrides", problem


class Arm(Section):
    """One way to train, told by what it changes in the base recipe."""

    recipe: str | None = Field(
        default=None,
        min_length=1,
        description="A recipe of its own, relative to the study's file; the study's if null.",
    )
    overrides: Overrides = Field(default=(), description=_OVERRIDES)
    differs_in: tuple[str, ...] = Field(
        default=(),
        description="What it may differ in from other arms beside what its overrides name: data, weights, "
        "schedule or calibration, which an override alone does not permit, or a key of the recipe.",
    )
    equal_compute: str | None = Field(
        default=None,
        description="Another arm that it is given as many passes over images as, by a longer or shorter "
        "schedule; permits the schedule to differ. Held against the resolved recipes.",
    )
    seeds: tuple[Seed, ...] | None = Field(
        default=None, min_length=1, description="Seeds of this arm, if they are not the study's."
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        yield from _broken_overrides(self.overrides)
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            yield "seeds", "names a seed twice"


class Comparison(Section):
    """A pair of arms, compared seed by seed."""

    of: str = Field(min_length=1, description="The arm whose numbers are looked at.")
    against: str = Field(min_length=1, description="The arm whose numbers are taken off, seed by seed.")


class Measure(Section):
    """What is measured of every run once it is trained."""

    checkpoint: Literal["last", "best"] = Field(
        default="last",
        description="Whose weights: last, or best, which was chosen by the very images that judge it.",
    )
    train_images: Count | None = Field(
        default=10_000, description="Training images, without augmentation, for the loss; all if null."
    )
    sharpness_images: Count = Field(
        default=1000, description="Training images, the same in all arms of a seed, for the sharpness."
    )
    rho: Positive = Field(
        default=0.4, description="Radius of the ball around the quantized weights, for the sharpness."
    )
    lambda_max_images: Count | None = Field(
        default=200,
        description="Training images, the same in all arms of a seed, for the largest eigenvalue of the "
        "Hessian: some thirty products of twice a forward and backward pass over them; none if null.",
    )
    calibration_bins: Annotated[int, Field(ge=2)] = Field(
        default=15, description="Bins of equal width of the expected calibration error."
    )


class Study(Section):
    """What is trained and compared."""

    version: Annotated[Literal[1], WholeNumber] = Field(description="Version of the format of studies.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60, description="Names the folder under studies/."
    )
    recipe: str = Field(min_length=1, description="The base recipe, relative to the study's file.")
    overrides: Overrides = Field(default=(), description=f"{_OVERRIDES} For all arms, before their own.")
    arms: dict[str, Arm] = Field(min_length=1, description="Ways to train, by name.")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="Every arm is trained once with each.")
    comparisons: tuple[Comparison, ...] = Field(default=(), description="Pairs of arms.")
    processes: Count = Field(default=1, description="Runs that train at a time.")
    threads: Count = Field(default=1, description="Threads of each.")
    measure: Measure = Field(default=Measure(), description="What is measured of every run.")

    def broken_rules(self) -> Iterator[BrokenRule]:
        yield from _broken_overrides(self.overrides)
        if len(set(self.seeds)) < len(self.seeds):
            yield "seeds", "names a seed twice"
        for name, arm in self.arms.items():
            if _NAME.fullmatch(name) is None:
                yield "arms", f"{name!r} is no name: letters, digits, dots, dashes, underscores; at most 60"
            if arm.equal_compute is not None:
                yield from self._broken_claim(name, arm.equal_compute)
        for index, pair in enumerate(self.comparisons):
            at = f"comparisons.{index}"
            for key, name in (("of", pair.of), ("against", pair.against)):
                if name not in self.arms:
                    yield f"{at}.{key}", self._no_arm(name)
            if pair.of == pair.against:
                yield at, f"compares {pair.of!r} with itself"
            elif {pair.of, pair.against} <= self.arms.keys() and not self._shared_seeds(pair):
                yield (
                    at,
                    f"{pair.of!r} and {pair.against!r} have no seed in common, and pairs are made by seed",
                )

    def _broken_claim(self, name: str, other: str) -> Iterator[BrokenRule]:
        at = f"arms.{name}.equal_compute"
        if other not in self.arms:
            yield at, self._no_arm(other)
        elif other == name:
            yield at, "names the arm itself; name the arm whose compute it is given"
        elif self.arms[other].equal_compute is not None:
            yield at, f"{other!r} makes such a claim itself; name the arm that it is measured by"

    def _shared_seeds(self, pair: Comparison) -> set[int]:
        return set(self.seeds_of(pair.of)) & set(self.seeds_of(pair.against))

    def _no_arm(self, name: str) -> str:
        return f"{name!r} is no arm; the arms are {', '.join(self.arms)}"

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The arm's own seeds, or the study's."""
        own = self.arms[arm].seeds
        return self.seeds if own is None else own


def load_study(path: Path) -> Study:
    """Read a study's file and check it.

    Raises:
        RecipeError: naming everything that is wrong, one line each, with file, line and column.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: no such study; it is a YAML file with a base recipe, arms and seeds, as those in "
            "configs/studies"
        ) from None
    tree = read_yaml(text, str(path))
    if not isinstance(tree.value, dict):
        raise RecipeError(f"{path}: a study is a section of keys and values, such as 'version: 1'")
    try:
        return Study.model_validate(as_tuples(tree.value))
    except ValidationError as error:
        raise RecipeError("\n".join(describe(error, tree, Study))) from None
