"""Training a recipe from Python, as the command does."""

from collections.abc import Sequence
from os import PathLike

from saq_qat.door.arguments import TrainSettings
from saq_qat.door.place import path_of
from saq_qat.errors import LegalityError, RecipeError
from saq_qat.recipe.load import dump_recipe, load_recipe, parse_section
from saq_qat.recipe.schema import Recipe
from saq_qat.train.beginning import beginning
from saq_qat.train.folder import create_run_folder
from saq_qat.train.progress import OnProgress, TrainingResult, silent
from saq_qat.train.run import run_training
from saq_qat_export.rehearsal import check_deployable

__all__ = ["train"]

Place = str | PathLike[str]


def train(
    recipe: Recipe | Place,
    *overrides: str,
    runs: Place = "runs",
    on_progress: OnProgress = silent,
) -> TrainingResult:
    """Train a recipe in a new folder below ``runs``; ``result.folder`` names it.

    As the command does, it first takes the untrained network the whole way to integers, so that nothing that
    is trained is refused later.

    Args:
        recipe: its file, or what ``saq_qat.recipe.load`` made of one.
        overrides: values to set, as ``train.stages.0.lr=0.01``; of a file alone.
        on_progress: told after every step.

    Raises:
        RecipeError, LegalityError, DataError: before anything is trained.
        DivergedError, TrainingStoppedError: while training; a checkpoint is kept.
    """
    below = path_of(runs, "train takes the folder of runs")
    parse_section(TrainSettings, {"overrides": overrides, "on_progress": on_progress}, "train")
    text, loaded = _loaded(recipe, overrides)
    network, images = beginning(loaded)
    if loaded.quant is not None and loaded.deploy.targets:
        errors = [f for f in check_deployable(network, loaded, images).findings if f.level == "error"]
        if errors:
            raise LegalityError("\n".join(map(str, errors)))
    folder = create_run_folder(below, loaded.name, text, overrides)
    return run_training(loaded, folder, on_progress=on_progress)


def _loaded(recipe: Recipe | Place, overrides: Sequence[str]) -> tuple[bytes, Recipe]:
    """The recipe, and its text as it was written."""
    if not isinstance(recipe, Recipe):
        file = path_of(
            recipe, "train takes the path of a recipe's file, or what saq_qat.recipe.load made of one"
        )
        loaded = load_recipe(file, overrides)
        return file.read_bytes(), loaded
    if overrides:
        raise RecipeError(
            f"Overrides set values of a recipe's file, and this recipe is made already: {list(overrides)}. "
            "Set them where it is loaded: load_recipe(path, overrides)."
        )
    return dump_recipe(recipe).encode(), recipe
