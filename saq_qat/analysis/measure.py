"""From a run to its loss surface, and to the numbers that analysis.json holds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from saq_qat.analysis.hessian import eigenvalues, trace
from saq_qat.analysis.images import FixedBatches, fixed_training_images
from saq_qat.analysis.record import (
    SCHEMA_VERSION,
    Analysis,
    Conditions,
    Hutchinson,
    Lanczos,
    earlier,
)
from saq_qat.analysis.surface import LossSurface, loss_surface
from saq_qat.train.choose import CheckpointName, choose_checkpoint
from saq_qat.train.restore import Restored, restore

__all__ = ["Settings", "Subject", "opened_run", "with_eigenvalues", "with_trace"]

OnDone = Callable[[int], None]


@dataclass(frozen=True)
class Settings:
    """How a run is measured.

    Attributes:
        checkpoint: ``best`` of the last stage if None, as other commands take it.
        images: training images; all if None. batch_size: images of a pass; the recipe's if None.
        count, tolerance, restarts: of ``eigenvalues``. probes: of ``trace``.
        seed: of first vectors, probes and directions.
        float64: in place of float32.
    """

    checkpoint: CheckpointName | None = None
    images: int | None = 1024
    batch_size: int | None = None
    count: int = 5
    tolerance: float = 1e-3
    restarts: int = 50
    probes: int = 32
    seed: int = 0
    float64: bool = False


@dataclass(frozen=True)
class Subject:
    """A run whose loss surface is open.

    Attributes:
        name: of the checkpoint that was taken.
        analysis: what is known of it so far.
    """

    run: Path
    restored: Restored
    name: CheckpointName
    surface: LossSurface
    conditions: Conditions
    analysis: Analysis


@contextmanager
def opened_run(run: Path, settings: Settings) -> Iterator[Subject]:
    """Restore a run and open the loss surface of its training images, on a GPU if there is one.

    Raises:
        ArtifactError, DataError: as ``restore``. ModelError: as ``earlier``. RecipeError: as
            ``loss_surface``.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float64 if settings.float64 else torch.float32
    name = choose_checkpoint(run, settings.checkpoint).taken.name
    restored = restore(run, name)
    begun = _begun(run, restored, name)
    images = fixed_training_images(restored.recipe, settings.images)
    size = settings.batch_size or restored.recipe.train.batch_size
    batches = FixedBatches(images, size, device, dtype)
    network = restored.network.to(device, dtype)
    with loss_surface(network, batches) as surface:
        loss = surface.loss_at([torch.zeros_like(slot) for slot in surface.slots])
        precision = str(dtype).removeprefix("torch.")
        conditions = Conditions(len(batches), loss, surface.size, precision, settings.seed)
        yield Subject(run, restored, name, surface, conditions, begun)


def _begun(run: Path, restored: Restored, name: CheckpointName) -> Analysis:
    found = earlier(run, restored.checkpoint_sha256)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    if found is not None:
        return replace(found, created=created, checkpoint=name)
    return Analysis(
        SCHEMA_VERSION, created, restored.checkpoint_sha256, None, name, restored.step, restored.form
    )


def with_eigenvalues(
    analysis: Analysis, subject: Subject, settings: Settings, on_product: OnDone
) -> Analysis:
    """The analysis with the largest eigenvalues of the Hessian; raises as ``eigenvalues``."""
    found = eigenvalues(
        subject.surface,
        settings.count,
        tolerance=settings.tolerance,
        seed=settings.seed,
        restarts=settings.restarts,
        on_product=on_product,
    )
    return replace(
        analysis,
        eigenvalues=found.eigenvalues,
        residuals=found.residuals,
        lanczos=Lanczos(subject.conditions, found.tolerance, found.converged, found.products),
    )


def with_trace(analysis: Analysis, subject: Subject, settings: Settings, on_probe: OnDone) -> Analysis:
    """The analysis with the trace of the Hessian; raises as ``trace``."""
    found = trace(subject.surface, probes=settings.probes, seed=settings.seed, on_probe=on_probe)
    return replace(
        analysis,
        trace=found.mean,
        trace_standard_error=found.standard_error,
        hutchinson=Hutchinson(subject.conditions, found.probes),
    )
