"""A training in progress: its surroundings, its network, where it stands; saving and resuming it."""

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saq_qat.data.batches import steps_per_epoch
from saq_qat.data.open import ImageData
from saq_qat.errors import RecipeError
from saq_qat.models.build import build_model
from saq_qat.quant.plan import Plan
from saq_qat.recipe.load import dump_recipe, load_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import Checkpoint, Form, Position, newest_checkpoint, write_checkpoint
from saq_qat.train.distributed import Processes
from saq_qat.train.files import write_whole
from saq_qat.train.forms import load_weights, network_in_form
from saq_qat.train.log import RunLog, environment
from saq_qat.train.progress import OnProgress
from saq_qat.train.stop import Stop

__all__ = ["RESOLVED", "Training", "begin_or_resume", "prepare_folder"]

RESOLVED = "resolved.yaml"


@dataclass
class Training:
    """Everything the loop reads and moves on.

    Attributes:
        loss_sum: of the epoch so far, for its mean.
        best: top-1 of the checkpoint ``best``, of networks of this form's kind; None before the first.
        accuracy: what the last evaluation found.
        unloaded: tensors of optimizer and method from the checkpoint, until their stage takes them.
    """

    recipe: Recipe
    folder: Path
    processes: Processes
    images: ImageData
    log: RunLog
    stop: Stop
    on_progress: OnProgress
    network: nn.Module
    plan: Plan | None = None
    form: Form = "float"
    position: Position = field(default_factory=Position)
    loss_sum: float = 0.0
    best: float | None = None
    accuracy: dict[str, float | None] = field(default_factory=dict)
    unloaded: dict[str, Tensor] | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def batches(self) -> int:
        """Optimizer steps in an epoch."""
        return steps_per_epoch(self.images, self.recipe.train.batch_size)

    @property
    def epochs_before(self) -> int:
        """Epochs of the stages before this one: no two epochs of a run see the same order of images."""
        return sum(stage.epochs for stage in self.recipe.train.stages[: self.position.stage])

    def move(self, **changes: int) -> None:
        """Change the position."""
        self.position = replace(self.position, **changes)

    def save(self, name: str, training: dict[str, Tensor]) -> None:
        """Write the checkpoint ``name`` (last or best); only the first process does."""
        if not self.processes.is_first:
            return
        progress: dict[str, Any] = {
            "loss_sum": self.loss_sum,
            "best": self.best,
            "accuracy": self.accuracy,
            "log_bytes": self.log.size,
        }
        checkpoint = Checkpoint(
            self.position, self.form, self.processes.world_size, self.network.state_dict(), training, progress
        )
        write_checkpoint(self.folder / "checkpoints" / name, checkpoint)

    def write_log(self, event: str, **values: Any) -> None:
        """Append to log.jsonl; only the first process does."""
        if self.processes.is_first:
            self.log.write(event, self.position.step, values)


def prepare_folder(recipe: Recipe, folder: Path, processes: Processes, *, resume: bool) -> None:
    """Make sure that ``folder`` belongs to this recipe, and write what describes the run.

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
        facts = environment(processes.device, processes.world_size)
        write_whole(folder / "env.json", json.dumps(facts, indent=2).encode())


def _check_same_recipe(resolved: Path, recipe: Recipe) -> None:
    before, now = _flat(load_recipe(resolved).model_dump()), _flat(recipe.model_dump())
    changed = [
        f"  {key}: {before.get(key, 'absent')} -> {now.get(key, 'absent')}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key, "absent") != now.get(key, "absent")
    ]
    if changed:
        raise RecipeError(
            f"{resolved.parent}: this run was started with another recipe, and would not be the same run:\n"
            + "\n".join(changed)
            + "\nStart a new run, or undo the changes."
        )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, (list, tuple))
        else None
    )
    if items is None:
        return {path: value}
    return {
        k: v for key, part in items for k, v in _flat(part, f"{path}.{key}" if path else str(key)).items()
    }


def begin_or_resume(
    recipe: Recipe,
    folder: Path,
    processes: Processes,
    images: ImageData,
    stop: Stop,
    on_progress: OnProgress,
) -> Training:
    """The training at its last checkpoint, or at its start if there is none.

    Raises:
        RecipeError: it was started with another number of processes, which would change every perturbation.
        ArtifactError: the checkpoint and the one before it are damaged.
    """
    checkpoint = newest_checkpoint(folder / "checkpoints" / "last")
    log = RunLog(folder / "log.jsonl")
    classes = len(images.classes)
    if checkpoint is None:
        torch.manual_seed(recipe.seed)
        network: nn.Module = build_model(recipe.model, classes).to(processes.device)
        training = Training(recipe, folder, processes, images, log, stop, on_progress, network)
    else:
        if checkpoint.world_size != processes.world_size:
            raise RecipeError(
                f"{folder}: started with {checkpoint.world_size} process(es), now {processes.world_size}; "
                "each perturbs its own share of a batch. Resume with torchrun "
                f"--nproc-per-node={checkpoint.world_size}."
            )
        network, plan = network_in_form(recipe, classes, checkpoint.form)
        load_weights(network, checkpoint.model, str(folder))
        training = Training(
            recipe,
            folder,
            processes,
            images,
            log,
            stop,
            on_progress,
            network.to(processes.device),
            plan,
            checkpoint.form,
            checkpoint.position,
            checkpoint.progress["loss_sum"],
            checkpoint.progress["best"],
            dict(checkpoint.progress["accuracy"]),
            dict(checkpoint.training),
        )
    if processes.is_first:
        log.cut(0 if checkpoint is None else checkpoint.progress["log_bytes"])
    return training
