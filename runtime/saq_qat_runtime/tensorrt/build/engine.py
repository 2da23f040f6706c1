"""An ONNX graph of the target `tensorrt` built into an engine, audited, with its record."""

import os
from dataclasses import dataclass
from pathlib import Path

from saq_qat_runtime import __version__
from saq_qat_runtime.bundle.files import file_sha256, is_plain_name, sha256
from saq_qat_runtime.bundle.onnx_file import parse_graph
from saq_qat_runtime.bundle.origin import written_by_us
from saq_qat_runtime.bundle.records import FileRecord
from saq_qat_runtime.bundle.result_files import write_whole
from saq_qat_runtime.errors import EngineError, ModelError, ResultError
from saq_qat_runtime.tensorrt.build.audit import audit_layers
from saq_qat_runtime.tensorrt.build.child import Finished, build_in_child
from saq_qat_runtime.tensorrt.build.exchange import Answer, Request
from saq_qat_runtime.tensorrt.build.flavours import available_flavours, choose_flavour
from saq_qat_runtime.tensorrt.build.layers import read_layers
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from saq_qat_runtime.tensorrt.driver import DriverStatus, driver_status
from saq_qat_runtime.tensorrt.engine_record import (
    ENGINE_FILES,
    ENGINE_SCHEMA_VERSION,
    Audit,
    EngineRecord,
    Flavour,
    record_name,
)

__all__ = ["BuiltEngine", "build_engine", "check_engine_place", "write_engine"]


@dataclass(frozen=True)
class BuiltEngine:
    """An engine as bytes, its record, and what the builder had to say: warnings, a timing cache refused."""

    content: bytes
    record: EngineRecord
    log: tuple[str, ...]


def build_engine(source: Path, options: BuildOptions, driver: DriverStatus | None = None) -> BuiltEngine:
    """Build an engine of the ONNX file ``source`` in a process of its own, and audit every product of it.

    Args:
        driver: the CUDA driver; asked if not given.

    Raises:
        BackendUnavailable: no TensorRT library can build here.
        InputError: the flavour cannot do what the options ask for.
        ModelError: there is no such file, or its name has blanks or the like in it.
        EngineError: the library refused the graph, crashed, or took too long; or the file changed meanwhile.
    """
    origin = _file_record(source)
    status = driver_status() if driver is None else driver
    flavour = choose_flavour(options.flavour, available_flavours(status))
    options.require_supported_by(flavour)
    finished = build_in_child(_request(source, options, flavour), options.timeout_seconds)
    audit = _audit(source, origin, finished.answer)
    record = _record(finished, options, flavour, status, origin, audit)
    return BuiltEngine(finished.content, record, finished.answer.notes)


def _file_record(source: Path) -> FileRecord:
    if not source.is_file():
        raise ModelError(f"{source}: there is no such file. Export the run first: saq-qat export.")
    if not is_plain_name(source.name):
        raise ModelError(
            f"{source}: the file's name must consist of letters, digits, '.', '_' and '-'. Rename it."
        )
    return FileRecord(source.name, file_sha256(source), source.stat().st_size)


def _request(source: Path, options: BuildOptions, flavour: Flavour) -> Request:
    cache = options.timing_cache
    return Request(
        flavour=flavour,
        source=str(source.resolve()),
        precision=options.precision,
        batch=options.batch,
        workspace_mib=options.workspace_mib,
        optimization_level=options.optimization_level,
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        timing_cache=str(cache.resolve()) if cache else None,
    )


def _audit(source: Path, origin: FileRecord, answer: Answer) -> Audit:
    content = source.read_bytes()
    if sha256(content) != origin.sha256:
        raise EngineError(f"{source}: the file was changed while its engine was being built. Build it again.")
    return audit_layers(parse_graph(content), read_layers(answer.layer_source, answer.layers))


def _record(
    finished: Finished,
    options: BuildOptions,
    flavour: Flavour,
    driver: DriverStatus,
    origin: FileRecord,
    audit: Audit,
) -> EngineRecord:
    answer = finished.answer
    return EngineRecord(
        schema_version=ENGINE_SCHEMA_VERSION,
        created_by=f"saq-qat-runtime {__version__}",
        file=FileRecord(ENGINE_FILES[flavour], sha256(finished.content), len(finished.content)),
        source=origin,
        flavour=flavour,
        version=answer.version,
        gpu=driver.gpu,
        compute_capabilities=answer.compute_capabilities or _own_capability(options, driver),
        cuda=driver.cuda,
        driver=driver.driver,
        precision=options.precision,
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        optimization_level=options.optimization_level,
        workspace_mib=options.workspace_mib,
        inputs=answer.inputs,
        outputs=answer.outputs,
        profiles=answer.profiles,
        audit=audit,
        build_seconds=answer.seconds,
    )


def _own_capability(options: BuildOptions, driver: DriverStatus) -> tuple[str, ...]:
    """Where an engine runs that was built for the GPU at hand; Ampere and later cannot be listed."""
    if driver.compute_capability is None or options.hardware_compatibility == "ampere_plus":
        return ()
    return (driver.compute_capability,)


def check_engine_place(folder: Path, engine: str) -> None:
    """Raise ResultError where an engine, or the file of its record, is there and no record of ours is.

    An engine has no room for a word on who wrote it: without a record beside it, it may be the user's own.
    """
    names = (engine, record_name(engine))
    taken = next((name for name in names if os.path.lexists(folder / name)), None)
    if taken is not None and written_by_us(folder / record_name(engine)) is None:
        raise ResultError(
            f"{folder / taken}: the engine needs this name, and no record of saq-qat beside it "
            f"({record_name(engine)}) says that it is an earlier engine, so the file is yours. Move it "
            "elsewhere, and build again."
        )


def write_engine(folder: Path, built: BuiltEngine) -> Path:
    """Write engine and record into a bundle's folder, each whole or not at all; returns the engine's path.

    The record comes last and holds the engine's hash: one that belongs to another engine is noticed.

    Raises:
        ResultError: a file of this name is there that is the user's.
        OSError: the folder cannot be written.
    """
    check_engine_place(folder, built.record.file.name)
    path = folder / built.record.file.name
    write_whole(path, built.content)
    write_whole(folder / record_name(path.name), built.record.to_json().encode())
    return path
