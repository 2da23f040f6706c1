"""Which engine runs a bundle, and the opening of it."""

from dataclasses import dataclass, replace
from pathlib import Path

from saq_qat_runtime.backend import Backend, check_threads
from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.files import LARGEST_FILE, read, read_verified
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.bundle.records import FileRecord
from saq_qat_runtime.errors import BackendUnavailable, InputError
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from saq_qat_runtime.openvino import OpenVinoBackend
from saq_qat_runtime.tensorrt.backend import Machine, TensorRtBackend
from saq_qat_runtime.tensorrt.checks import check_source
from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES, EngineRecord
from saq_qat_runtime.tensorrt.library import ENGINE_LIBRARIES, EngineLibrary

__all__ = ["BACKENDS", "OpenedBundle", "open_bundle"]

_ONNXRUNTIME, _OPENVINO = OnnxRuntimeBackend.name, OpenVinoBackend.name
_TENSORRT = "tensorrt"
_ON_CPU = (_OPENVINO, _ONNXRUNTIME)
_LIBRARIES = {library.backend: library for library in ENGINE_LIBRARIES}
BACKENDS = (*_LIBRARIES, *_ON_CPU)
_KNOWN = f"This version runs: {', '.join(map(repr, ('auto', *BACKENDS)))}."


@dataclass(frozen=True)
class OpenedBundle:
    """What runs. target: which of the manifest's models; model: the file that was loaded.

    threads: of one call, None on a GPU. skipped: engines that "auto" passed over, each with its reason.
    """

    backend: Backend
    target: str
    model: FileRecord
    threads: int | None = None
    skipped: tuple[str, ...] = ()


def open_bundle(
    folder: Path,
    manifest: Manifest,
    backend: str,
    *,
    threads: int | None,
    verify: bool,
    machine: Machine | None = None,
) -> OpenedBundle:
    """Load the bundle's model on `backend`, one of BACKENDS, or "auto" for the first of them that can run it.

    The bytes that are hashed are the bytes that are loaded; without `verify` an ONNX file is not hashed, an
    engine is all the same. threads: for engines on the CPU.
    Raises BackendUnavailable where the one asked for, or every one, cannot run here; ModelError for a
    model that is missing, damaged, or not the bundle's own; InputError for threads of an engine on a GPU.
    """
    if not isinstance(backend, str):
        raise InputError(f"backend must be a name, got {type(backend).__name__}. {_KNOWN}")
    check_threads(threads)
    machine = machine or Machine()
    if backend == "auto":
        return _open_first(folder, manifest, threads, verify, machine)
    if backend not in BACKENDS:
        raise BackendUnavailable(f"Backend {backend!r} is not supported. {_KNOWN}")
    if threads is not None and backend in _LIBRARIES:
        engines = " and ".join(map(repr, _ON_CPU))
        raise InputError(f"threads is for {engines}; {backend!r} runs on the GPU. Leave it out.")
    return _open(folder, manifest, backend, threads, verify, machine)


def _open_first(
    folder: Path, manifest: Manifest, threads: int | None, verify: bool, machine: Machine
) -> OpenedBundle:
    failures: dict[str, BackendUnavailable] = {}
    for backend in _candidates(folder, manifest):
        try:
            opened = _open(folder, manifest, backend, threads, verify, machine)
        except BackendUnavailable as error:
            failures[backend] = error
        else:
            return replace(opened, skipped=_reasons(failures))
    if len(failures) == 1:
        raise next(iter(failures.values()))
    why = " ".join(_reasons(failures)) or _no_engine(folder)
    raise BackendUnavailable(f"No engine can run this bundle here. {why}")


def _candidates(folder: Path, manifest: Manifest) -> list[str]:
    """Backends for which the folder holds a file, in the order of preference."""
    built = [
        name for name, library in _LIBRARIES.items() if (folder / ENGINE_FILES[library.flavour]).exists()
    ]
    return built + [engine for engine in _ON_CPU if engine in manifest.models]


def _reasons(failures: dict[str, BackendUnavailable]) -> tuple[str, ...]:
    return tuple(f"{backend}: {error}" for backend, error in failures.items())


def _open(
    folder: Path, manifest: Manifest, backend: str, threads: int | None, verify: bool, machine: Machine
) -> OpenedBundle:
    library = _LIBRARIES.get(backend)
    target = backend if library is None else _TENSORRT
    fix = f"Export it for {target!r} (deploy.targets in the recipe)."
    require(target in manifest.models, f"{folder} holds models for {sorted(manifest.models)} only. {fix}")
    source = manifest.models[target]
    if library is not None:
        return _open_engine(folder, source, library, machine)
    if verify:
        content = read_verified(folder, source.name, source.sha256, source.bytes)
    else:
        content = read(folder, source.name)
    return OpenedBundle(_cpu_engine(backend, content, manifest, threads), target, source, threads)


def _cpu_engine(backend: str, content: bytes, manifest: Manifest, threads: int | None) -> Backend:
    if backend == _OPENVINO:
        return OpenVinoBackend(content, threads=threads)
    exact_pairs = bool(manifest.cpu.over_pair_bound)
    return OnnxRuntimeBackend(content, threads=threads, exact_pairs=exact_pairs)


def _open_engine(folder: Path, source: FileRecord, library: EngineLibrary, machine: Machine) -> OpenedBundle:
    name = ENGINE_FILES[library.flavour]
    if not (folder / name).exists():
        raise BackendUnavailable(_no_engine(folder, name))
    record = EngineRecord.load(folder, name)
    check_source(record, source)
    content = read(folder, name, max(LARGEST_FILE, record.file.bytes))
    backend = TensorRtBackend(content, record, library, machine=machine)
    return OpenedBundle(backend, _TENSORRT, record.file)


def _no_engine(folder: Path, name: str = "") -> str:
    missing = f"no engine {name}".rstrip()
    return (
        f"{folder} holds {missing}: engines are built on the machine that runs them: "
        f"saq-qat-runtime build {folder}."
    )
