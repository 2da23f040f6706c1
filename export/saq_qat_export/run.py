"""From a run folder to a bundle: restore, lower, export, prove, write."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import fx

from saq_qat.data.batches import val_batches
from saq_qat.data.sample import sample_validation
from saq_qat.errors import ArtifactError, GateError
from saq_qat.quant.deploy import deploy_view
from saq_qat.quant.plan import Plan
from saq_qat.train.restore import Restored, restore
from saq_qat_export.bundle import check_destination, make_bundle, write_bundle
from saq_qat_export.onnx_graph import OnnxGraph, export_onnx
from saq_qat_export.proof import Proof, ProofSize, prove
from saq_qat_runtime.manifest import Manifest

__all__ = ["Exported", "Lowered", "export_run", "lower_run", "prove_run"]

_GOLDEN_IMAGES = 2


@dataclass(frozen=True)
class Lowered:
    """A run's checkpoint as trained network, deploy view and ONNX graph."""

    restored: Restored
    network: fx.GraphModule
    plan: Plan
    view: fx.GraphModule
    graph: OnnxGraph


@dataclass(frozen=True)
class Exported:
    """What ``export_run`` wrote, and the proof of it."""

    folder: Path
    manifest: Manifest
    proof: Proof


def lower_run(run: Path, checkpoint: Literal["last", "best"]) -> Lowered:
    """Restore a run and lower it for ONNX Runtime.

    Raises:
        ArtifactError: the run is in full precision, or cannot be restored.
    """
    restored = restore(run, checkpoint)
    if restored.plan is None or not isinstance(restored.network, fx.GraphModule):
        raise ArtifactError(
            f"{run}: export needs a quantized network, and this run was trained in full precision. "
            "Add a quant section and a quantized stage to the recipe; model.pretrained may name this run's "
            "weights."
        )
    view = deploy_view(restored.network, restored.recipe.deploy)
    settings = restored.images.preprocessing
    shape = (settings.channels, settings.image_size, settings.image_size)
    graph = export_onnx(view, shape, restored.recipe.deploy)
    return Lowered(restored, restored.network, restored.plan, view, graph)


def prove_run(lowered: Lowered, size: ProofSize, on_step: Callable[[str], None]) -> Proof:
    """Climb the ladder with the run's own images and thresholds."""
    return prove(
        lowered.network,
        lowered.view,
        lowered.plan,
        lowered.graph,
        lowered.restored.images,
        lowered.restored.recipe.deploy.thresholds,
        size,
        on_step,
    )


def export_run(
    run: Path,
    folder: Path,
    *,
    checkpoint: Literal["last", "best"] = "last",
    size: ProofSize | None = None,
    allow_failed_gate: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write the bundle of a run into ``folder``.

    Raises:
        ArtifactError: the run cannot be lowered, or ``folder`` holds something that is no bundle.
        GateError: a hard rung failed and ``allow_failed_gate`` is false; nothing is written.
    """
    check_destination(folder)
    on_step("lowering to integers and exporting to ONNX")
    lowered = lower_run(run, checkpoint)
    proof = prove_run(lowered, size or ProofSize(), on_step)
    if not proof.passed and not allow_failed_gate:
        raise GateError(_failure(proof))
    on_step("writing the bundle")
    bundle = make_bundle(
        lowered.restored,
        lowered.plan,
        lowered.view,
        lowered.graph,
        proof,
        _golden_images(lowered.restored),
        allow_failed_gate=allow_failed_gate,
    )
    write_bundle(bundle, folder)
    return Exported(folder, bundle.manifest, proof)


def _failure(proof: Proof) -> str:
    failed = "; ".join(f"{r.name}: {r.detail}" for r in proof.rungs if r.hard and not r.passed)
    return (
        f"The exported integers are not the trained ones, so no bundle was written. {failed}. "
        "See 'saq-qat verify' for every tensor; --allow-failed-gate writes the bundle, marked as failed."
    )


def _golden_images(restored: Restored) -> npt.NDArray[np.float32]:
    golden = sample_validation(restored.images, _GOLDEN_IMAGES)
    images, _ = next(iter(val_batches(golden, batch_size=_GOLDEN_IMAGES)))
    return images.numpy()
