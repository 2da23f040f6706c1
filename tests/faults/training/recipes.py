"""Recipes and folders of the faults of training: as small as shows the fault."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe

__all__ = [
    "EPOCHS",
    "STAGES",
    "copied",
    "everything_in",
    "faulty_recipe",
    "with_hashes",
    "with_state",
    "with_tensors",
]

EPOCHS = 2
RECIPE = f"""
version: 1
name: faults
model: {{name: "tests.train.small_network:SmallNetwork", arguments: {{dropout: 0.1}}}}
data: {{kind: synthetic, image_size: 8, train_size: 64, val_size: 16}}
train:
  batch_size: 16
  optimizer: {{kind: sgd}}
  stages: [{{kind: float, epochs: {EPOCHS}, lr: 0.05}}]
"""
STAGES = """
  - {kind: float, epochs: 1, lr: 0.05}
  - {kind: quantized, epochs: 2, lr: 0.02, method: {kind: saq, rho: 0.3, efficient: {tau: 3}}}
"""


def faulty_recipe(*overrides: str) -> Recipe:
    """Two epochs of four steps of a small network in full precision, and what a test changes of it."""
    return parse_recipe(RECIPE, "faults", overrides)


def copied(run: Path, to: Path) -> Path:
    """The folder of a run once more, to do harm to."""
    return Path(shutil.copytree(run, to))


def with_hashes(checkpoint: Path) -> None:
    """Let sha256.json fit whatever lies in a checkpoint: harm that no hash tells."""
    path = checkpoint / "sha256.json"
    names = json.loads(path.read_text())
    hashes = {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in names}
    path.write_text(json.dumps(hashes))


def with_state(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit state.json, with a hash that fits."""
    path = checkpoint / "state.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))
    with_hashes(checkpoint)


def with_tensors(checkpoint: Path, name: str, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Edit a file of tensors, with a hash that fits."""
    tensors = load_file(checkpoint / name)
    change(tensors)
    save_file({key: value.contiguous() for key, value in tensors.items()}, checkpoint / name)
    with_hashes(checkpoint)


def everything_in(folder: Path) -> dict[str, bytes]:
    """Every file by its path, to see that nothing was changed."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
