"""A run measured: fake-quant and integers on validation images, loss and sharpness on training images."""

import statistics
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn

from saq_qat.analysis.hessian import NotConvergedError, eigenvalues
from saq_qat.analysis.images import FixedBatches, fixed_training_images
from saq_qat.analysis.study.answers import Labels, Logits, answers_of, cross_entropy, flips, top1
from saq_qat.analysis.study.arms import image_passes, passes_per_step
from saq_qat.analysis.study.quantities import Curvature, Measured, StepCost
from saq_qat.analysis.study.schema import Measure
from saq_qat.analysis.study.sharpness import sharpness
from saq_qat.analysis.surface import loss_surface
from saq_qat.data.batches import val_batches
from saq_qat.data.open import ImageData
from saq_qat.data.sample import sample_validation
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.numerics.layers import quant_layers
from saq_qat.recipe.schema import DescentStage, Recipe
from saq_qat.train.log import read_log
from saq_qat.train.restore import Restored, restore
from saq_qat_export.graph.onnx_graph import INPUT, OUTPUT, export_onnx
from saq_qat_runtime.bundle.result_files import decode_result, read_result, write_result
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend

__all__ = ["MEASURED_FILE", "SCHEMA_VERSION", "measure_run", "read_measured", "write_measured"]

MEASURED_FILE = Path("analysis", "measured.json")
"""Below a run's folder."""
SCHEMA_VERSION = 3
"""Counts changes of the keys and of how their numbers are computed, so that no study compares two ways: a
measurement of another version is made again."""

_FIX = "Delete the file: 'saq-qat study' then measures the run again."
_BATCH = 100
_TOLERANCE, _RESTARTS = 1e-2, 20  # of lambda_max


def measure_run(run: Path, settings: Measure, threads: int) -> Measured:
    """Measure the checkpoint of a run that ``settings`` name, on the CPU.

    Args:
        threads: of ONNX Runtime.

    Raises:
        ArtifactError: the folder is no run, or its checkpoint is missing or damaged.
        DataError: the images are not what the recipe says.
    """
    restored = restore(run, settings.checkpoint)
    images = restored.images
    fake, labels = _logits(restored.network, images)
    whole, integer, products = _integer_logits(restored, threads)
    train = fixed_training_images(restored.recipe, None)
    train_logits, train_labels = _logits(restored.network, sample_validation(train, settings.train_images))
    some = sample_validation(train, settings.sharpness_images)
    bins = settings.calibration_bins
    return Measured(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        checkpoint_sha256=restored.checkpoint_sha256,
        bundle_sha256=None,
        checkpoint=settings.checkpoint,
        settings=settings.model_dump(),
        form=restored.form,
        step=restored.step,
        fake_quant=answers_of(fake, labels, bins),
        deployed=None if whole is None else answers_of(whole, labels, bins),
        integer_kernels=integer,
        products=products,
        flips=None if whole is None else flips(fake, whole),
        train_loss=cross_entropy(train_logits, train_labels),
        train_top1=top1(train_logits, train_labels),
        train_images=len(train_labels),
        sharpness=sharpness(restored.network, lambda: val_batches(some, batch_size=_BATCH), settings.rho),
        curvature=_curvature(restored.network, train, settings.lambda_max_images),
        step_cost=_step_cost(restored.recipe, run),
        image_passes=image_passes(restored.recipe),
    )


@torch.no_grad()
def _logits(network: nn.Module, images: ImageData) -> tuple[Logits, Labels]:
    """Logits (n, classes) and labels (n,) of the validation images."""
    network.eval()
    return _stacked(images, lambda batch: network(batch).float().numpy())


def _integer_logits(restored: Restored, threads: int) -> tuple[Logits | None, int | None, int | None]:
    """What the integers answer on ONNX Runtime's kernels, and how many of how many products these compute.

    None for a network that is not deployed: in full precision, without targets, or with codes of more than 8
    bits.
    """
    plan, network, deploy = restored.plan, restored.network, restored.recipe.deploy
    if plan is None or not plan.deployable or not deploy.targets or not isinstance(network, fx.GraphModule):
        return None, None, None
    settings = restored.images.preprocessing
    shape = (settings.channels, settings.image_size, settings.image_size)
    graph = export_onnx(deploy_view(network, deploy), shape, deploy)
    backend = OnnxRuntimeBackend(graph.content, threads=threads, exact_pairs=bool(graph.over_pair_bound))
    logits, _ = _stacked(restored.images, lambda batch: backend.run({INPUT: batch.numpy()})[OUTPUT])
    kernels = backend.integer_count()
    return logits, kernels.integer, kernels.total


def _stacked(
    images: ImageData, answer: Callable[[Tensor], np.typing.NDArray[np.float32]]
) -> tuple[Logits, Labels]:
    logits, labels = [], []
    for batch, truth in val_batches(images, batch_size=_BATCH):
        logits.append(answer(batch).astype(np.float64))
        labels.append(truth.numpy())
    return np.concatenate(logits), np.concatenate(labels)


def _curvature(network: nn.Module, train: ImageData, images: int | None) -> Curvature | None:
    """As ``analyze`` finds it, by the same first vector for all runs."""
    if images is None or not quant_layers(network):
        return None
    batches = FixedBatches(sample_validation(train, images), _BATCH, torch.device("cpu"))
    with loss_surface(network, batches) as surface:
        try:
            found = eigenvalues(surface, tolerance=_TOLERANCE, restarts=_RESTARTS)
        except NotConvergedError:
            return Curvature(None, None, False, len(batches))
    return Curvature(found.eigenvalues[0], found.residuals[0], found.converged, len(batches))


def _step_cost(recipe: Recipe, run: Path) -> StepCost:
    """Of the last stage that moves weights and is no deploy stage, or of the deploy stage alone."""
    moving = [s for s in recipe.train.stages if isinstance(s, DescentStage)]
    if not moving:
        return StepCost(0.0, None)
    stage = next((s for s in reversed(moving) if s.kind != "deploy"), moving[-1])
    log = run / "log.jsonl"
    epochs = [line for line in (read_log(log) if log.is_file() else ()) if line.get("event") == "epoch"]
    seconds = [
        float(line["step_seconds"])
        for line in epochs
        if line.get("stage") == stage.kind and line.get("step_seconds") is not None
    ]
    return StepCost(passes_per_step(stage.method), statistics.median(seconds) if seconds else None)


def write_measured(measured: Measured, run: Path) -> None:
    """Write it into the run's folder.

    Raises:
        ResultError: a number is not finite, or the file cannot be written.
    """
    write_result(run / MEASURED_FILE, asdict(measured))


def read_measured(run: Path) -> Measured:
    """What was measured of a run.

    Raises:
        VersionError: it is of another version. ModelError: it is missing or damaged.
    """
    path = run / MEASURED_FILE
    return decode_result(Measured, read_result(path, SCHEMA_VERSION, _FIX), path, _FIX)
