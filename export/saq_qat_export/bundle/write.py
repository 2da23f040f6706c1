"""The folder that ships: model, manifest and golden samples, written whole or not at all."""

import hashlib
import io
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saq_qat.data.open import ImageData
from saq_qat.errors import SaqError
from saq_qat.recipe.load import dump_recipe
from saq_qat.train.files import sync_folder, write_synced
from saq_qat.version import __version__
from saq_qat_export.bundle.destination import (
    GOLDEN_FILE,
    MODEL_FILES,
    PROBES_FILE,
    check_destination,
    keep_others,
    swap,
)
from saq_qat_export.bundle.expected import expected_answers
from saq_qat_export.bundle.golden import golden_codes, logits_tolerances
from saq_qat_export.bundle.probes.make import make_probes
from saq_qat_export.bundle.records import (
    cpu_record,
    deploy_record,
    gate_record,
    layer_records,
    sizes_of,
    tensor_records,
)
from saq_qat_export.graph.onnx_graph import INPUT, OUTPUT
from saq_qat_export.proof.lowered import Lowered
from saq_qat_export.proof.prove import Proof
from saq_qat_runtime.bundle.expected import EXPECTED_FILE
from saq_qat_runtime.bundle.manifest import (
    MANIFEST_FILE,
    SCHEMA_VERSION,
    CpuRecord,
    FileRecord,
    Golden,
    Manifest,
    Preprocessing,
    ProbesRecord,
    RecipeRecord,
    TensorSpec,
)
from saq_qat_runtime.recorded import to_arrays

__all__ = [
    "MODEL_FILES",
    "Bundle",
    "make_bundle",
    "write_bundle",
]

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Bundle:
    """Files of a bundle by name, and the manifest that lists them."""

    manifest: Manifest
    files: dict[str, bytes]


def make_bundle(
    lowered: Lowered,
    proof: Proof,
    golden_images: npt.NDArray[np.float32],
    *,
    allow_failed_gate: bool,
    kept: bool = True,
) -> Bundle:
    """Everything that ships of one checkpoint; the same bytes for the same checkpoint and package versions.

    Args:
        golden_images: float32 (N, C, H, W) whose codes and logits a server checks before it reports ready.
        kept: whether it will be: then samples are compressed, and probes designed that cover every weight.
    """
    restored, view = lowered.restored, lowered.view
    codes, logits = golden_codes(view, lowered.graph, golden_images)
    files = {MODEL_FILES[target]: graph.content for target, graph in lowered.shipped.items()}
    golden = {"inputs": golden_images, "logits": logits, **{name: codes[name] for name in sorted(codes)}}
    files[GOLDEN_FILE] = _arrays(golden, compress=kept)
    probes = (
        make_probes(view, lowered.graph, golden_images, codes, designed=kept)
        if "onnxruntime" in lowered.shipped
        else None
    )
    if probes is not None:
        files[PROBES_FILE] = _arrays(to_arrays(probes.samples), compress=kept)
    files[EXPECTED_FILE] = expected_answers(restored, proof.agreement).to_csv()
    records = {
        name: FileRecord(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }
    models = {target: records[MODEL_FILES[target]] for target in lowered.shipped}
    tolerances = logits_tolerances(lowered.shipped, lowered.graph, golden_images, logits)
    inputs, outputs, preprocessing = _interface(restored.images)
    text = dump_recipe(restored.recipe)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=restored.recipe.name,
        created_by=f"saq-qat {__version__}",
        inputs=(inputs,),
        outputs=(outputs,),
        preprocessing=preprocessing,
        labels=restored.images.classes,
        models=models,
        golden=Golden(records[GOLDEN_FILE], tolerances),
        expected=records[EXPECTED_FILE],
        layers=layer_records(lowered.plan, view),
        tensors=tensor_records(view),
        sizes=sizes_of(view, {target: model.bytes for target, model in models.items()}),
        cpu=_cpu_record(lowered, proof),
        deploy=deploy_record(restored.recipe.deploy),
        gate=gate_record(proof, allow_failed_gate=allow_failed_gate),
        recipe=RecipeRecord(text, hashlib.sha256(text.encode()).hexdigest()),
        checkpoint_sha256=restored.checkpoint_sha256,
        versions={name: version(name) for name in _PACKAGES},
        probes=None if probes is None else ProbesRecord(records[PROBES_FILE], probes.coverage),
    )
    return Bundle(manifest, files)


def _cpu_record(lowered: Lowered, proof: Proof) -> CpuRecord:
    graph = lowered.shipped.get("onnxruntime")
    cpu = lowered.restored.recipe.deploy.onnxruntime.cpu
    return cpu_record(cpu, () if graph is None else graph.over_pair_bound, proof)


def _interface(images: ImageData) -> tuple[TensorSpec, TensorSpec, Preprocessing]:
    """What goes in, what comes out, and how an image becomes the one."""
    own = images.preprocessing
    return (
        TensorSpec(INPUT, "float32", ("N", own.channels, own.image_size, own.image_size)),
        TensorSpec(OUTPUT, "float32", ("N", len(images.classes))),
        own,
    )


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write beside ``folder`` and move into place; a failure leaves an older bundle as it was.

    What else lies in the folder stays: files of the user, and engines that were built from the same graph. A
    link to a folder stays a link.

    Raises:
        ArtifactError: ``folder`` holds something that is no bundle, or cannot be a folder.
        SaqError: the disk is full, or the folder cannot be written.
    """
    real = check_destination(folder)
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=real.parent, prefix=f".{real.name}-") as scratch:
            fresh = Path(scratch) / "new"
            _write_files(bundle, fresh)
            keep_others(real, fresh, bundle.manifest)
            swap(fresh, real, Path(scratch) / "old")
        sync_folder(real.parent)
    except OSError as error:
        raise SaqError(
            f"{folder}: the bundle cannot be written: {error.strerror or error}. "
            "An older bundle there is untouched; free some space or name another folder."
        ) from error


def _write_files(bundle: Bundle, folder: Path) -> None:
    folder.mkdir()
    for name, content in bundle.files.items():
        write_synced(folder / name, content)
    write_synced(folder / MANIFEST_FILE, bundle.manifest.to_json().encode())
    sync_folder(folder)


def _arrays(arrays: Mapping[str, npt.NDArray[Any]], *, compress: bool) -> bytes:
    """An .npz file."""
    save: Callable[..., None] = np.savez_compressed if compress else np.savez
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()
