"""Whether an engine may be loaded here; asked before the library sees a byte of it, for an engine is code."""

import re

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.files import sha256
from saq_qat_runtime.bundle.records import FileRecord
from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.tensorrt.driver import DriverStatus
from saq_qat_runtime.tensorrt.engine_record import EngineRecord
from saq_qat_runtime.tensorrt.library import EngineLibrary

__all__ = ["check_content", "check_gpu", "check_library", "check_source", "check_version", "runs_version"]

_FIX = "Build it again on this machine: saq-qat-runtime build FOLDER."
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
# Engines of the major before its own that a major runs (support matrix 11.4.1, "Engine Portability").
_OLDER_MAJOR = {11: 10}
_AMPERE = 8


def check_content(content: bytes, record: EngineRecord) -> None:
    """Raise ModelError unless `content` is the engine that `record` describes, byte for byte."""
    name, found = record.file.name, sha256(content)
    require(
        len(content) == record.file.bytes and found == record.file.sha256,
        f"{name} was changed after it was built: {len(content)} bytes with sha256 {found[:12]}..., while "
        f"its record says {record.file.bytes} bytes with {record.file.sha256[:12]}.... {_FIX}",
    )


def check_source(record: EngineRecord, source: FileRecord) -> None:
    """Raise ModelError unless the engine was built from the bundle's own ONNX file `source`."""
    require(
        record.source.sha256 == source.sha256,
        f"{record.file.name} was built from another model: from sha256 {record.source.sha256[:12]}..., this "
        f"bundle's {source.name} has {source.sha256[:12]}.... {_FIX}",
    )


def check_library(record: EngineRecord, library: EngineLibrary) -> None:
    """Raise BackendUnavailable if engines of this flavour, or built this way, are not for `library`."""
    if record.flavour != library.flavour:
        rule = f"{record.file.name} is an engine for {record.flavour}; {library.backend} runs others"
        raise BackendUnavailable(f"{rule}. {_FIX}")
    if library.only_version_compatible and not record.version_compatible:
        rule = f"{library.backend} runs version-compatible engines only, and {record.file.name} is none"
        fix = "Set version_compatible in deploy.tensorrt of the recipe, or build with that option."
        raise BackendUnavailable(f"{rule}. {fix}")


def check_version(record: EngineRecord, library: EngineLibrary, version: str) -> None:
    """Raise BackendUnavailable unless version `version` of `library` runs what `record.version` built."""
    if not runs_version(record, version):
        accepts = "this or a later version" if _portable(record) else "exactly this version"
        rule = f"{record.file.name} was built by {record.flavour} {record.version} and needs {accepts}"
        raise BackendUnavailable(f"{rule}; installed is {library.backend} {version}. {_FIX}")


def runs_version(record: EngineRecord, version: str) -> bool:
    """Whether library version `version` runs an engine of `record.version`.

    Engines belong to one version; TensorRT-RTX has no others. A version-compatible one runs on later versions
    of its major, and of the next where NVIDIA documents the pair.
    """
    built, here = _numbers(record.version), _numbers(version)
    if not built or not here:
        return False
    if built == here or not _portable(record):
        return built == here
    return built < here and built[0] in (here[0], _OLDER_MAJOR.get(here[0]))


def check_gpu(record: EngineRecord, status: DriverStatus) -> None:
    """Raise BackendUnavailable unless the engine runs on this GPU.

    An engine belongs to one model of GPU, unless it was built for a compute capability, or for Ampere and
    later. A TensorRT-RTX engine for no compute capability in particular is left to the library to judge.
    """
    capability, built_for = status.compute_capability, record.compute_capabilities
    if record.hardware_compatibility == "ampere_plus":
        fits, needs = capability is not None and int(capability.split(".")[0]) >= _AMPERE, "8.0 or later"
    elif built_for and (record.flavour == "tensorrt-rtx" or record.hardware_compatibility != "none"):
        fits, needs = capability in built_for, " or ".join(built_for)
    elif record.flavour == "tensorrt-rtx":
        return
    else:
        fits, needs = record.gpu is not None and record.gpu == status.gpu, f"the GPU {record.gpu}"
    if not fits:
        here = f"here is {status.gpu} with compute capability {capability}"
        raise BackendUnavailable(f"{record.file.name} was built for {needs}; {here}. {_FIX}")


def _portable(record: EngineRecord) -> bool:
    return record.version_compatible and record.flavour == "tensorrt"


def _numbers(version: str) -> tuple[int, ...]:
    found = _NUMBERS.match(version)
    return () if found is None else tuple(int(number) for number in found[0].split("."))
