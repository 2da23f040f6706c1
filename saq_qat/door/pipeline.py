"""From a run, or a network of the caller's own, to a bundle that is proved, and proved again."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import overload

from saq_qat.data.given import Labelled
from saq_qat.door.arguments import ExportSettings, Pictures, ProofSettings, as_list
from saq_qat.door.network import QuantizedNetwork
from saq_qat.door.place import path_of
from saq_qat.door.source import OwnNetwork, own_network, preprocessing_of
from saq_qat.errors import ArtifactError, GateError, RecipeError
from saq_qat.quant.plan.plan import Finding
from saq_qat.recipe.load import parse_section
from saq_qat.train.choose import CheckpointName, checkpoint_with
from saq_qat.train.folder import RESOLVED
from saq_qat.train.progress import TrainingResult
from saq_qat_export.bundle.destination import check_destination
from saq_qat_export.proof.fixes import failed_checks, flip_fix
from saq_qat_export.proof.lowered import lower_restored, lower_run
from saq_qat_export.proof.prove import Proof, ProofSize
from saq_qat_export.proof.trained_numbers import check_clip_levels
from saq_qat_export.run import export_lowered, export_run
from saq_qat_export.verify import Lower, verify_bundle
from saq_qat_runtime.bundle.manifest import Manifest

__all__ = ["Bundle", "export", "verify"]

Place = str | PathLike[str]
OnStep = Callable[[str], None]
_EXPORTED = (
    "export takes what train gave, a run's folder, or a quantized network; quantize a float one first: "
    "sq.quantize(model, images)"
)
_FOLDER = "export takes the folder to write the bundle to"


@dataclass(frozen=True)
class Bundle:
    """A folder that ships, as ``export`` wrote it.

    Attributes:
        folder: what ``saq_qat_runtime.session.Session.load`` takes.
        manifest: what it says of itself.
        proof: every comparison that was made.
        findings: what the rules of TensorRT say of its graph.
        source: what it was exported from: a run's folder, or a copy of the caller's network.
    """

    folder: Path
    manifest: Manifest
    proof: Proof
    findings: tuple[Finding, ...]
    source: Path | OwnNetwork


@overload
def export(
    source: TrainingResult | Place,
    *,
    folder: Place | None = None,
    checkpoint: CheckpointName | None = None,
    tensorrt: bool = False,
    size: ProofSize | None = None,
    allow_failed_gate: bool = False,
    on_step: OnStep = ...,
) -> Bundle: ...


@overload
def export(
    source: QuantizedNetwork,
    images: Labelled,
    *,
    folder: Place,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
    name: str | None = None,
    tensorrt: bool = False,
    size: ProofSize | None = None,
    allow_failed_gate: bool = False,
    on_step: OnStep = ...,
) -> Bundle: ...


def export(
    source: TrainingResult | QuantizedNetwork | Place,
    images: Labelled | None = None,
    *,
    folder: Place | None = None,
    checkpoint: CheckpointName | None = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
    name: str | None = None,
    tensorrt: bool = False,
    size: ProofSize | None = None,
    allow_failed_gate: bool = False,
    on_step: OnStep = lambda _: None,
) -> Bundle:
    """Write a bundle of integers, if they are proved to be those of the trained network.

    Args:
        source: what ``train`` gave, or a run's folder; or a network of ``quantize``, trained in any loop.
        images: labelled validation images of such a network, as it gets them: a pair of tensors, float32
            (N, C, S, S) and labels (N,), or batches of such pairs. All are kept in memory and classified.
        folder: of the bundle; RUN/export of a run if None. An older bundle there is replaced.
        checkpoint: of the run; the best of its last stage if None.
        classes: names of the logits, which the bundle's answers bear; their numbers if None.
        mean, std: by which your transform normalises pixels of 0 to 1, for each channel; 0 and 1 if None. The
            bundle prepares pictures so. With ``resize``, their short side is resized to it before the
            centre crop; straight to a square if None.
        name: of the bundle; that of the network's class if None.
        tensorrt: a graph for TensorRT too, although it is no target.
        size: how many images are compared code by code, and classified.
        allow_failed_gate: write the bundle even if the proof fails, marked so.
        on_step: told in words what is being done.

    Raises:
        GateError: the proof failed; nothing is written.
        LegalityError: a graph breaks a rule of its target; nothing is written.
        ArtifactError: the run cannot be lowered, or ``folder`` holds something that is no bundle.
        DataError, RecipeError: the images, or a setting.
    """
    shared = {"tensorrt": tensorrt, "size": size, "allow_failed_gate": allow_failed_gate, "on_step": on_step}
    settings = parse_section(ExportSettings, {**shared, "checkpoint": checkpoint}, "export")
    if isinstance(source, QuantizedNetwork):
        if folder is None or images is None:
            raise RecipeError(
                "A network of your own is exported with images to prove it on and a folder for the bundle: "
                "export(net, (images, labels), folder='bundle')."
            )
        place = path_of(folder, _FOLDER)
        channels = source.image[0]
        lists = {"mean": as_list(mean, channels), "std": as_list(std, channels)}
        lists["classes"] = as_list(classes, source.classes)
        pictures = parse_section(Pictures, {**lists, "resize": resize, "name": name}, "export")
        preprocessing = preprocessing_of(source, pictures.mean, pictures.std, pictures.resize)
        own = own_network(source, images, preprocessing, classes=pictures.classes, name=pictures.name)
        return _export_own(own, place, settings)
    run = source.folder if isinstance(source, TrainingResult) else path_of(source, _EXPORTED)
    if images is not None:
        raise RecipeError(f"{run}: a run is proved on the images of its recipe; leave images out.")
    return _export_run(run, run / "export" if folder is None else path_of(folder, _FOLDER), settings)


def _export_own(own: OwnNetwork, folder: Path, settings: ExportSettings) -> Bundle:
    check_destination(folder)
    with own.restored() as restored:
        settings.on_step("lowering to integers and exporting to ONNX")
        check_clip_levels(restored.network, restored.run)
        shipped = export_lowered(
            lower_restored(restored, tensorrt=settings.tensorrt),
            folder,
            size=settings.size or ProofSize(top1_images=None),
            allow_failed_gate=settings.allow_failed_gate,
            on_step=settings.on_step,
        )
    return Bundle(folder, shipped.manifest, shipped.proof, shipped.findings, own)


def _export_run(run: Path, folder: Path, settings: ExportSettings) -> Bundle:
    exported = export_run(
        run,
        folder,
        checkpoint=settings.checkpoint,
        size=settings.size,
        tensorrt=settings.tensorrt,
        allow_failed_gate=settings.allow_failed_gate,
        on_step=settings.on_step,
    )
    return Bundle(exported.folder, exported.manifest, exported.proof, exported.findings, run)


def verify(
    bundle: Bundle | Place,
    *,
    run: Place | None = None,
    size: ProofSize | None = None,
    on_step: OnStep = lambda _: None,
) -> Proof:
    """Prove a bundle anew from its files on disk, beside the checkpoint or the network it was exported from.

    Args:
        bundle: what ``export`` gave, or its folder.
        run: that it was exported from, where ``bundle`` is a folder elsewhere than in that run.
        size: how many images are compared code by code, and classified; 16 and all if None.

    Raises:
        GateError: a hard comparison failed, or the files state other numbers than were trained.
        ArtifactError: there is no such folder; a file is damaged, or belongs to another network.
    """
    settings = parse_section(ProofSettings, {"size": size, "on_step": on_step}, "verify")
    size = settings.size or ProofSize(16, None)
    wanted = "verify takes what export gave, or a bundle's folder"
    folder = bundle.folder if isinstance(bundle, Bundle) else path_of(bundle, wanted)
    if not os.path.isdir(folder):  # noqa: PTH112  pathlib raises for a name that no disk can hold
        raise ArtifactError(f"{folder}: there is no such folder. Name that of a bundle, as export wrote it.")
    source = bundle.source if isinstance(bundle, Bundle) else run
    if isinstance(source, OwnNetwork):
        return _verify_own(folder, source, size, on_step)
    exported_from = _run_of(folder, source)
    which = checkpoint_with(exported_from, Manifest.load(folder).checkpoint_sha256)
    return _proved(
        folder,
        exported_from / "checkpoints" / which,
        lambda tensorrt: lower_run(exported_from, which, tensorrt=tensorrt),
        size,
        on_step,
    )


def _verify_own(folder: Path, source: OwnNetwork, size: ProofSize, on_step: OnStep) -> Proof:
    with source.restored() as restored:
        stated, own = Manifest.load(folder).checkpoint_sha256, restored.checkpoint_sha256
        if stated != own:
            raise ArtifactError(
                f"{folder}: another network was exported there since; the SHA-256 of its weights is "
                f"{stated[:12]}..., and of these {own[:12]}.... Export again."
            )
        return _proved(
            folder,
            restored.checkpoint,
            lambda tensorrt: lower_restored(restored, tensorrt=tensorrt),
            size,
            on_step,
        )


def _proved(folder: Path, checkpoint: Path, lower: Lower, size: ProofSize, on_step: OnStep) -> Proof:
    verified = verify_bundle(folder, checkpoint, lower, size, on_step)
    comparisons = verified.proof.comparisons
    failed = failed_checks(comparisons)
    if failed:
        fix = flip_fix(comparisons, biases_learned=verified.lowered.restored.form == "deploy")
        raise GateError(f"{folder}: not proved: {'; '.join(failed)}." + (f" The {fix}" if fix else ""))
    return verified.proof


def _run_of(bundle: Path, run: Place | None) -> Path:
    """The run a bundle was exported from: the one named, or the one it lies in."""
    found = bundle.absolute().parent if run is None else path_of(run, "verify takes the folder of a run")
    if not os.path.isfile(found / RESOLVED):  # noqa: PTH113  as above, of folders
        raise ArtifactError(
            f"{bundle}: verify needs what the bundle was exported from, and {found} is no run (it has no "
            f"{RESOLVED}). Name it, as verify(bundle, run='runs/...'); a bundle of your own network is "
            "verified in the program that exported it, by what export gave."
        )
    return found
