"""Mutants of what a network was trained on: its classes and its preprocessing, changed before the export."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from saq_qat.data.open import ImageData, open_data
from saq_qat.recipe.load import load_recipe
from tests.gate.harness import Mutant

__all__ = ["MUTANTS"]

Patch = pytest.MonkeyPatch

RESTORE = "saq_qat.train.restore"


def images_with(change: Callable[[ImageData], ImageData]) -> Callable[[Patch], None]:
    """Data that opens otherwise than in training."""

    def patched(patch: Patch) -> None:
        patch.setattr(RESTORE + ".open_data", lambda *arguments: change(open_data(*arguments)))

    return patched


def classes(change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Callable[[Patch], None]:
    return images_with(lambda images: replace(images, classes=change(images.classes)))


def preprocessing(**values: Any) -> Callable[[Patch], None]:
    return images_with(lambda images: replace(images, preprocessing=replace(images.preprocessing, **values)))


def recipe_edited(**values: Any) -> Callable[[Patch], None]:
    """The resolved recipe of the run was edited after training."""

    def loaded(*arguments: Any) -> Any:
        recipe = load_recipe(*arguments)
        return recipe.model_copy(update={"data": recipe.data.model_copy(update=values)})

    return lambda patch: patch.setattr(RESTORE + ".load_recipe", loaded)


_ROWS: tuple[tuple[str, str, Callable[[Patch], None], str], ...] = (
    ("labels reversed", "cnn", classes(lambda names: names[::-1]), r"classes: 10 \(class 0.*class 9"),
    ("two labels swapped", "cnn", classes(lambda names: (*names[:8], names[9], names[8])), r"from index 8"),
    ("a label renamed", "vit", classes(lambda names: ("cat", *names[1:])), r"class 0.*cat"),
    ("mean of the preprocessing", "cnn", preprocessing(mean=(0.5, 0.5, 0.501)), r"mean: .*0\.501"),
    ("deviation of the preprocessing", "vit", preprocessing(std=(0.5, 0.5, 0.5)), r"std: .*0\.25.*0\.5"),
    ("resize before the crop", "cnn", preprocessing(resize=18), r"resize: None in training, 18 here"),
    ("mean edited in the run's recipe", "cnn", recipe_edited(mean=(0.0, 0.0, 0.0)), r"mean: \(0\.5"),
    ("deviation edited in the run's recipe", "vit", recipe_edited(std=(1.0, 1.0, 1.0)), r"std: \(0\.25"),
)

MUTANTS = tuple(Mutant(name, network, "code", change, named) for name, network, change, named in _ROWS)
