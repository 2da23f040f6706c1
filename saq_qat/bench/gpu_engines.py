"""Who takes part on the GPU: the bundle's TensorRT engine, and float engines of the same network."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from saq_qat.bench.engines import Images, Runner
from saq_qat.bench.record import Candidate
from saq_qat_export.graph.passes.float16 import to_float16
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.choose import open_bundle
from saq_qat_runtime.errors import BackendUnavailable, SessionError
from saq_qat_runtime.promises import check_interface
from saq_qat_runtime.tensorrt.backend import Machine, TensorRtBackend
from saq_qat_runtime.tensorrt.build.engine import BuiltEngine, build_engine
from saq_qat_runtime.tensorrt.build.flavours import FLAVOUR_NAMES
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES, EngineRecord
from saq_qat_runtime.tensorrt.library import ENGINE_LIBRARIES, EngineLibrary

__all__ = ["GpuBundle", "GpuRunner", "float_engines", "open_gpu_bundle"]

Build = Callable[[Path, BuildOptions], BuiltEngine]
Precision = Literal["float32", "float16"]
Form = Literal["bundle", "float32", "float16"]

_PRECISIONS: tuple[Precision, ...] = ("float32", "float16")


@dataclass(frozen=True)
class GpuRunner:
    """A candidate on the GPU.

    Attributes:
        form: the bundle's integers, or what the network computes with instead.
        largest_batch: that its engine accepts.
    """

    form: Form
    runner: Runner
    backend: TensorRtBackend
    largest_batch: int

    @property
    def name(self) -> str:
        """The candidate's."""
        return self.runner.candidate.name


@dataclass(frozen=True)
class GpuBundle:
    """The bundle's engine, its record, and what runs it."""

    runner: GpuRunner
    record: EngineRecord
    library: EngineLibrary
    machine: Machine


def open_gpu_bundle(
    folder: Path, manifest: Manifest, engine: str, machine: Machine
) -> tuple[GpuBundle | None, tuple[str, ...]]:
    """The first engine of the bundle that runs here, and why those before it do not.

    Args:
        engine: one backend, or "auto" for all that the folder holds an engine for.

    Raises:
        ModelError: the bundle or its engine is damaged, or the engine belongs to another bundle.
        BackendUnavailable: the backend that ``engine`` names cannot run here.
    """
    if engine == "auto" and "tensorrt" not in manifest.models:
        return None, ()
    reasons: list[str] = []
    for library in ENGINE_LIBRARIES:
        wanted = (folder / ENGINE_FILES[library.flavour]).exists() if engine == "auto" else False
        if not wanted and library.backend != engine:
            continue
        try:
            return _open(folder, manifest, library, machine), tuple(reasons)
        except BackendUnavailable as error:
            if engine != "auto":
                raise
            reasons.append(f"{library.backend}: {error}")
    none_built = f"TensorRT: {folder} holds no engine; build it on the machine that runs it: saq-qat build"
    return None, tuple(reasons) or (none_built,)


def _open(folder: Path, manifest: Manifest, library: EngineLibrary, machine: Machine) -> GpuBundle:
    opened = open_bundle(folder, manifest, library.backend, threads=None, verify=True, machine=machine)
    record = EngineRecord.load(folder, ENGINE_FILES[library.flavour])
    if not isinstance(opened.backend, TensorRtBackend):
        raise TypeError(f"{library.backend} must open a TensorRT engine")
    check_interface(manifest, opened.backend)
    between = "" if record.precision == "float32" else ", float16 between"
    network = f"the bundle's integers{between}"
    return GpuBundle(_runner("bundle", network, opened.backend, record), record, library, machine)


def float_engines(
    float_model: bytes, bundle: GpuBundle, build: Build = build_engine
) -> tuple[list[GpuRunner], tuple[str, ...]]:
    """Engines of the same network in float32 and float16, built as the bundle's was; and why one is missing.

    Args:
        float_model: ONNX, float32.
    """
    found: list[GpuRunner] = []
    reasons: list[str] = []
    for precision in _PRECISIONS:
        try:
            built = _build(precision, _in_precision(float_model, precision), bundle.record, build)
            backend = TensorRtBackend(built.content, built.record, bundle.library, machine=bundle.machine)
        except SessionError as error:
            reasons.append(f"{precision} engine: {error}")
        else:
            found.append(_runner(precision, "the run's weights without quantizers", backend, built.record))
    return found, tuple(reasons)


def _in_precision(float_model: bytes, precision: Precision) -> bytes:
    if precision == "float32":
        return float_model
    model = ir.from_proto(onnx.load_from_string(float_model))
    to_float16(model)
    return bytes(ir.to_proto(model).SerializeToString())


def _build(precision: Precision, content: bytes, record: EngineRecord, build: Build) -> BuiltEngine:
    """With the settings of the bundle's engine, so that the arithmetic is all that differs."""
    options = BuildOptions(
        flavour=record.flavour,
        precision=precision,
        batch=_batches(record),
        workspace_mib=record.workspace_mib,
        optimization_level=record.optimization_level,
        hardware_compatibility=record.hardware_compatibility,
        version_compatible=record.version_compatible,
    )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{precision}.onnx"
        source.write_bytes(content)
        return build(source, options)


def _batches(record: EngineRecord) -> tuple[int, int, int]:
    """Smallest, usual and largest batch of an engine; a static one has a single size."""
    for profile in record.profiles:
        return profile.minimum[0], profile.optimum[0], profile.maximum[0]
    size = int(record.inputs[0].shape[0])
    return size, size, size


def _runner(form: Form, network: str, backend: TensorRtBackend, record: EngineRecord) -> GpuRunner:
    image, logits = backend.inputs[0].name, backend.outputs[0].name

    def run(images: Images) -> npt.NDArray[np.float32]:
        return backend.run({image: images})[logits]

    candidate = Candidate(
        name=f"{form}, {FLAVOUR_NAMES[record.flavour]}",
        engine=f"{backend.name} {backend.version}",
        network=network,
        file_bytes=record.file.bytes,
        integer=backend.integer_count(),
        top1=None,
    )
    return GpuRunner(form, Runner(candidate, run), backend, _batches(record)[2])
