"""The folder of a run: its name, and the recipe as it was written and as it was resolved."""

import json
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from saq_qat.errors import RecipeError
from saq_qat.recipe.flat import flat
from saq_qat.recipe.load import dump_recipe, load_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.files import make_folder, write_whole

__all__ = [
    "RESOLVED",
    "changes",
    "check_folder",
    "create_run_folder",
    "removed_unless_started",
    "write_resolved",
]

RESOLVED = "resolved.yaml"
"""The recipe with every default, in each run's folder."""

_MAY_CHANGE = frozenset(
    {
        *("data.root", "data.workers", "train.checkpoint_steps"),
        *("train.teacher.run", "train.teacher.model.pretrained"),
    }
)
"""What a run may go on with otherwise. Images and teacher are known by their digests, wherever they lie."""


def create_run_folder(root: Path, name: str, recipe: bytes, overrides: Sequence[str] = ()) -> Path:
    """Make ``<root>/<name>/<YYYYmmdd-HHMMSS>-<4 hex>/`` with recipe.yaml as written and overrides.json."""
    folder = root / name / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    make_folder(folder, new=True)
    write_whole(folder / "recipe.yaml", recipe)
    write_whole(folder / "overrides.json", json.dumps(list(overrides)).encode())
    return folder


@contextmanager
def removed_unless_started(folder: Path) -> Iterator[None]:
    """Remove the folder of a run that is refused or interrupted before it began."""
    try:
        yield
    except BaseException:  # passed on; a signal leaves no folder either
        if not (folder / RESOLVED).exists():
            shutil.rmtree(folder, ignore_errors=True)  # what is told is why the run was refused
            with suppress(OSError):  # other runs of the recipe
                folder.parent.rmdir()
        raise


def check_folder(recipe: Recipe, folder: Path, *, resume: bool) -> None:
    """Make sure that ``folder`` belongs to this recipe.

    Raises:
        RecipeError: it holds a run already and ``resume`` is false, or a run of another recipe.
    """
    if not resume and (folder / "checkpoints").exists():
        raise RecipeError(
            f"{folder}: holds a run already. Go on with --resume, or start in a folder of its own."
        )
    resolved = folder / RESOLVED
    changed = changes(load_recipe(resolved), recipe) if resolved.exists() else []
    if changed:
        raise RecipeError(
            f"{folder}: this run was started with another recipe, and would not be the same run:\n"
            + "\n".join(changed)
            + "\nStart a new run, or undo the changes."
        )


def write_resolved(recipe: Recipe, folder: Path) -> None:
    """Write the recipe with every default, which makes the folder one of a run."""
    write_whole(folder / RESOLVED, dump_recipe(recipe).encode())


def changes(before: Recipe, now: Recipe) -> list[str]:
    """Where two recipes differ in what a training depends on, a line each with both values."""
    own, its = flat(before.model_dump()), flat(now.model_dump())
    return [
        f"  {key}: {own.get(key, 'absent')} -> {its.get(key, 'absent')}"
        for key in dict.fromkeys([*own, *its])
        if own.get(key, "absent") != its.get(key, "absent") and not _may_change(key)
    ]


def _may_change(key: str) -> bool:
    return key in _MAY_CHANGE or key.startswith("train.logs")
