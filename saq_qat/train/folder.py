"""The folder of a run: its name, and the recipe as it was written and as it was resolved."""

import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from saq_qat.errors import RecipeError
from saq_qat.recipe.flat import flat
from saq_qat.recipe.load import dump_recipe, load_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.distributed import Processes
from saq_qat.train.files import write_whole

__all__ = ["RESOLVED", "create_run_folder", "prepare_folder"]

RESOLVED = "resolved.yaml"
"""The recipe with every default, in each run's folder."""

_FREE = "train.logs"
"""Of no effect on what is trained: a run may go on with others."""


def create_run_folder(root: Path, name: str, recipe: bytes, overrides: Sequence[str] = ()) -> Path:
    """Make ``<root>/<name>/<YYYYmmdd-HHMMSS>-<4 hex>/`` with recipe.yaml as written and overrides.json."""
    folder = root / name / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    write_whole(folder / "recipe.yaml", recipe)
    write_whole(folder / "overrides.json", json.dumps(list(overrides)).encode())
    return folder


def prepare_folder(recipe: Recipe, folder: Path, processes: Processes, *, resume: bool) -> None:
    """Make sure that ``folder`` belongs to this recipe, and write it there.

    Raises:
        RecipeError: it holds a run already and ``resume`` is false, or a run of another recipe.
    """
    resolved = folder / RESOLVED
    if resolved.exists():
        if not resume and (folder / "checkpoints").exists():
            raise RecipeError(
                f"{folder}: holds a run already. Go on with --resume, or start in a folder of its own."
            )
        _check_same_recipe(resolved, recipe)
    if processes.is_first:
        write_whole(resolved, dump_recipe(recipe).encode())


def _check_same_recipe(resolved: Path, recipe: Recipe) -> None:
    before, now = flat(load_recipe(resolved).model_dump()), flat(recipe.model_dump())
    changed = [
        f"  {key}: {before.get(key, 'absent')} -> {now.get(key, 'absent')}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key, "absent") != now.get(key, "absent") and not key.startswith(_FREE)
    ]
    if changed:
        raise RecipeError(
            f"{resolved.parent}: this run was started with another recipe, and would not be the same run:\n"
            + "\n".join(changed)
            + "\nStart a new run, or undo the changes."
        )
