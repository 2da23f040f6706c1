"""Short names for runs that stand side by side."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from saq_qat.recipe.load import load_recipe
from saq_qat.train.folder import RESOLVED

__all__ = ["run_labels"]


def run_labels(runs: Sequence[Path]) -> dict[Path, str]:
    """The name of each run's recipe; with the seed, or else the folder, where that alone is not unique."""
    recipes = {run: load_recipe(run / RESOLVED) for run in runs}
    candidates = (
        {run: recipe.name for run, recipe in recipes.items()},
        {run: f"{recipe.name}, seed {recipe.seed}" for run, recipe in recipes.items()},
        {run: f"{recipe.name}, {run.name}" for run, recipe in recipes.items()},
    )
    for labels in candidates:
        if not labels or Counter(labels.values()).most_common(1)[0][1] == 1:
            return labels
    return {run: str(run) for run in runs}
