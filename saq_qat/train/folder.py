"""The folder of a new run: its name, and the recipe as it was written."""

import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from saq_qat.train.files import write_whole

__all__ = ["create_run_folder"]


def create_run_folder(root: Path, name: str, recipe: bytes, overrides: Sequence[str] = ()) -> Path:
    """Make ``<root>/<name>/<YYYYmmdd-HHMMSS>-<4 hex>/`` with recipe.yaml as written and overrides.json."""
    folder = root / name / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    write_whole(folder / "recipe.yaml", recipe)
    write_whole(folder / "overrides.json", json.dumps(list(overrides)).encode())
    return folder
