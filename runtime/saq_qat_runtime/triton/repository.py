"""A bundle as models of Triton Inference Server: configuration, labels, warm-up and numbered versions.

A bundle gives a model for Triton's ONNX Runtime on the CPU, whose provider for CUDA has no int8
convolutions, and another for its TensorRT where the folder holds an engine of it. The layout is that of
docs/user_guide/model_repository.md in triton-inference-server/server.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.files import read_verified
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.bundle.result_files import sync_folder, write_synced, write_whole
from saq_qat_runtime.errors import InputError, ModelError, ResultError
from saq_qat_runtime.promises import check_gate, read_golden
from saq_qat_runtime.tensorrt.checks import check_source
from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES, EngineRecord
from saq_qat_runtime.triton.config import LARGEST_BATCH, Placement, TritonModel, config_text
from saq_qat_runtime.triton.own_files import OWN_FILES, check_replaceable, own_files
from saq_qat_runtime.triton.preprocessing import client_steps

__all__ = ["triton_models", "write_triton"]

_CONFIG, _LABELS, _PREPROCESSING = "config.pbtxt", "labels.txt", "preprocessing.json"
_WARM_UP, _IMAGE = "warmup", "image"
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]*")


def write_triton(
    bundle: Path, repository: Path, name: str | None = None, *, allow_failed_gate: bool = False
) -> tuple[Path, ...]:
    """Write the bundle's models into `repository`; the folders of their versions, new or found unchanged.

    A model that is there already gets its next version, unless its newest one has the same bytes. A version
    appears whole and after its configuration, so that a server that watches the folder never loads a half.
    name: of the model; the manifest's if None, with "-tensorrt" behind it for the engine.
    Raises ModelError for a bundle that is damaged, unproved, or has nothing that Triton runs; InputError for
    a name that is none; ResultError where the repository cannot be written, or a file of the user's, such as
    a configuration that was changed by hand, lies in the place of one.
    """
    manifest = Manifest.load(bundle)
    check_gate(bundle, manifest, allow_failed_gate)
    models = triton_models(bundle, manifest, name)
    image = read_golden(bundle, manifest)[0][0]
    try:
        files = {model.name: _files(model, manifest, image) for model in models}
        for name, contents in files.items():
            check_replaceable(repository / name, contents)
        return tuple(_write(repository / model.name, model, files[model.name]) for model in models)
    except OSError as error:
        raise ResultError(
            f"{repository} cannot be written: {error}. Free some space or name another folder."
        ) from error


def triton_models(bundle: Path, manifest: Manifest, name: str | None = None) -> tuple[TritonModel, ...]:
    """What of the bundle Triton can run: its graph on ONNX Runtime, and its engine on TensorRT if built.

    Raises as `write_triton` does.
    """
    name = manifest.name if name is None else name
    if _MODEL_NAME.fullmatch(name) is None:
        raise InputError(
            f"{name!r} cannot name a model's folder: up to 128 letters, digits, '.', '_' and '-', the first "
            "a letter or digit. Name it otherwise."
        )
    models = (*_graph(bundle, manifest, name), *_engine(bundle, manifest, name))
    if not models:
        raise ModelError(
            f"{bundle} has graphs for {', '.join(sorted(manifest.models))} and no TensorRT engine; Triton "
            "runs graphs for onnxruntime and engines of TensorRT (not of TensorRT-RTX). Add onnxruntime to "
            "deploy.targets, or build the engine first."
        )
    return models


def _graph(bundle: Path, manifest: Manifest, name: str) -> Iterator[TritonModel]:
    file = manifest.models.get("onnxruntime")
    if file is None:
        return
    products = len(manifest.cpu.over_pair_bound)
    beyond = f"needs a CPU with VNNI for {products} of its products: Triton cannot ask for exact kernels"
    yield TritonModel(
        name=name,
        platform="onnxruntime_onnx",
        file="model.onnx",
        content=read_verified(bundle, file.name, file.sha256, file.bytes),
        largest_batch=LARGEST_BATCH,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        kind="KIND_CPU",
        remark=beyond if products else manifest.cpu.elsewhere,
    )


def _engine(bundle: Path, manifest: Manifest, name: str) -> Iterator[TritonModel]:
    engine, source = ENGINE_FILES["tensorrt"], manifest.models.get("tensorrt")
    if source is None or not (bundle / engine).is_file():
        return
    record = EngineRecord.load(bundle, engine)
    check_source(record, source)
    largest = max((profile.maximum[0] for profile in record.profiles), default=None)
    where = record.gpu or f"compute capability {', '.join(record.compute_capabilities)}"
    yield TritonModel(
        name=f"{name}-tensorrt",
        platform="tensorrt_plan",
        file="model.plan",
        content=read_verified(bundle, engine, record.file.sha256, record.file.bytes),
        largest_batch=largest,
        inputs=record.inputs,
        outputs=record.outputs,
        kind="KIND_GPU",
        remark=f"built by TensorRT {record.version} on {where}: serve it with the same",
    )


def _files(model: TritonModel, manifest: Manifest, image: NDArray[np.float32]) -> dict[str, bytes]:
    """What stands in a model's folder beside its versions."""
    values = {spec.name: _IMAGE for spec in model.inputs}
    fixed = 1 if model.largest_batch is not None else int(model.inputs[0].shape[0])
    steps = client_steps(manifest.preprocessing, model.inputs[0])
    return {
        f"{_WARM_UP}/{_IMAGE}": np.repeat(image[np.newaxis], fixed, 0).astype("<f4").tobytes(),
        _LABELS: _label_lines(manifest.labels),
        _PREPROCESSING: (json.dumps(steps, indent=2) + "\n").encode(),
        _CONFIG: config_text(model, Placement(_LABELS, values)).encode(),
    }


def _write(folder: Path, model: TritonModel, files: dict[str, bytes]) -> Path:
    """One model's folder: everything but the version first, for the server looks when a version appears."""
    (folder / _WARM_UP).mkdir(parents=True, exist_ok=True)
    for name, content in (*files.items(), (OWN_FILES, own_files(files))):
        write_whole(folder / name, content)
    return _add_version(folder, model)


def _add_version(folder: Path, model: TritonModel) -> Path:
    """The next version's folder with the model in it, or the newest one if it has these very bytes."""
    known = [int(path.name) for path in folder.iterdir() if path.is_dir() and _VERSION.fullmatch(path.name)]
    newest = folder / str(max(known, default=0))
    file = newest / model.file
    if file.is_file() and file.read_bytes() == model.content:
        return newest
    whole, partial = folder / str(max(known, default=0) + 1), folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # mostly it is not there; mkdir tells of the rest
    partial.mkdir()
    write_synced(partial / model.file, model.content)
    sync_folder(partial)
    partial.rename(whole)
    sync_folder(folder)
    return whole


def _label_lines(labels: tuple[str, ...]) -> bytes:
    """One label a line, as Triton reads them; a line break within a label becomes a space."""
    return "".join(" ".join(label.splitlines()) + "\n" for label in labels).encode()
