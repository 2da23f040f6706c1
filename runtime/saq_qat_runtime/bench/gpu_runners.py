"""Who takes part on the GPU: the bundle's TensorRT engine, and whatever else was built for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from saq_qat_runtime.bench.record import Candidate
from saq_qat_runtime.bench.runners import Images, Runner
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.choose import open_bundle
from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.promises import check_interface
from saq_qat_runtime.tensorrt.backend import Machine, TensorRtBackend
from saq_qat_runtime.tensorrt.build.flavours import FLAVOUR_NAMES
from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES, EngineRecord
from saq_qat_runtime.tensorrt.library import ENGINE_LIBRARIES, EngineLibrary

__all__ = ["Form", "GpuBundle", "GpuRunner", "batches_of", "gpu_runner", "open_gpu_bundle"]

Form = Literal["bundle", "float32", "float16"]


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
    folder: Path, manifest: Manifest, backend: str, machine: Machine
) -> tuple[GpuBundle | None, tuple[str, ...]]:
    """The first engine of the bundle that runs here, and why those before it do not.

    Args:
        backend: one of them, or "auto" for all that the folder holds an engine for.

    Raises:
        ModelError: the bundle or its engine is damaged, or the engine belongs to another bundle.
        BackendUnavailable: the backend that ``backend`` names cannot run here.
    """
    if backend == "auto" and "tensorrt" not in manifest.models:
        return None, ()
    reasons: list[str] = []
    for library in ENGINE_LIBRARIES:
        wanted = (folder / ENGINE_FILES[library.flavour]).exists() if backend == "auto" else False
        if not wanted and library.backend != backend:
            continue
        try:
            return _open(folder, manifest, library, machine), tuple(reasons)
        except BackendUnavailable as error:
            if backend != "auto":
                raise
            reasons.append(f"{library.backend}: {error}")
    none_built = (
        f"TensorRT: {folder} holds no engine; build it on the machine that runs it: saq-qat-runtime build"
    )
    return None, tuple(reasons) or (none_built,)


def _open(folder: Path, manifest: Manifest, library: EngineLibrary, machine: Machine) -> GpuBundle:
    opened = open_bundle(folder, manifest, library.backend, threads=None, verify=True, machine=machine)
    record = EngineRecord.load(folder, ENGINE_FILES[library.flavour])
    if not isinstance(opened.backend, TensorRtBackend):
        raise TypeError(f"{library.backend} must open a TensorRT engine")
    check_interface(manifest, opened.backend)
    between = "" if record.precision == "float32" else ", float16 between"
    network = f"the bundle's integers{between}"
    return GpuBundle(gpu_runner("bundle", network, opened.backend, record), record, library, machine)


def batches_of(record: EngineRecord) -> tuple[int, int, int]:
    """Smallest, usual and largest batch of an engine; a static one has a single size."""
    for profile in record.profiles:
        return profile.minimum[0], profile.optimum[0], profile.maximum[0]
    size = int(record.inputs[0].shape[0])
    return size, size, size


def gpu_runner(form: Form, network: str, backend: TensorRtBackend, record: EngineRecord) -> GpuRunner:
    """A loaded engine as a candidate; network: what it computes."""
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
    return GpuRunner(form, Runner(candidate, run), backend, batches_of(record)[2])
