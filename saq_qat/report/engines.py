"""What is known of a bundle's TensorRT engines: version, audit, and whether they were ever run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from saq_qat.errors import ArtifactError
from saq_qat_runtime.bench.record import Bench
from saq_qat_runtime.bundle.files import file_sha256
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import ModelError
from saq_qat_runtime.report.text import megabytes, milliseconds
from saq_qat_runtime.tensorrt.build.flavours import FLAVOUR_NAMES
from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES, Audit, EngineRecord, record_name

__all__ = ["BuiltFile", "audit_label", "built_engines", "engine_lines", "engine_warnings", "missed_layers"]

_MISSED_SHOWN = 3


@dataclass(frozen=True)
class BuiltFile:
    """An engine in a bundle's folder.

    Attributes:
        stale: why it is not the bundle's engine, empty if it is.
    """

    record: EngineRecord
    stale: str


def built_engines(folder: Path, manifest: Manifest) -> tuple[BuiltFile, ...]:
    """Engines beside a bundle, by their records; none is loaded.

    Raises:
        ArtifactError: a record is damaged.
    """
    return tuple(_built(folder, manifest))


def _built(folder: Path, manifest: Manifest) -> Iterator[BuiltFile]:
    for name in ENGINE_FILES.values():
        if not (folder / record_name(name)).is_file():
            continue
        try:
            record = EngineRecord.load(folder, name)
        except ModelError as error:
            raise ArtifactError(f"{error} Build the engine again: saq-qat build {folder}") from error
        yield BuiltFile(record, _stale(folder, manifest, record))


def _stale(folder: Path, manifest: Manifest, record: EngineRecord) -> str:
    source, engine = manifest.models.get("tensorrt"), folder / record.file.name
    if source is None or source.sha256 != record.source.sha256:
        return "built from another model than this bundle's"
    if not engine.is_file():
        return f"{engine.name} is missing"
    return "" if file_sha256(engine) == record.file.sha256 else f"{engine.name} is not the file it tells of"


def audit_label(audit: Audit) -> str:
    """How many products are int8 layers, by the engine's own list of them."""
    return f"{audit.integer}/{audit.total} int8"


def engine_lines(engines: tuple[BuiltFile, ...], bench: Bench | None) -> list[str]:
    """For each engine: what it is, how it was built, and whether it ran."""
    lines: list[str] = []
    for engine in engines:
        record = engine.record
        if engine.stale:
            lines.append(f"{_name(record)}: of no use: {engine.stale}")
            continue
        lines += [
            f"{_name(record)}: {audit_label(record.audit)} convolutions and products ({record.audit.source})",
            f"  {_build(record)}",
            f"  {_run(record, bench)}",
        ]
        lines += [f"  float: {layer.node}: {layer.reason}" for layer in record.audit.missed[:_MISSED_SHOWN]]
    return lines


def _name(record: EngineRecord) -> str:
    return f"{FLAVOUR_NAMES[record.flavour]} {record.version}"


def _build(record: EngineRecord) -> str:
    where = "without a GPU" if record.gpu is None else f"on {record.gpu}"
    batches = [f"{profile.minimum[0]} to {profile.maximum[0]}" for profile in record.profiles[:1]]
    sizes = f"batch {batches[0]}, " if batches else ""
    return (
        f"{record.file.name}, {megabytes(record.file.bytes)}, {sizes}{record.precision} between int8 layers, "
        f"built {where} in {record.build_seconds:.1f} s"
    )


def _run(record: EngineRecord, bench: Bench | None) -> str:
    gpu = None if bench is None else bench.gpu
    if gpu is not None and gpu.engine_sha256 == record.file.sha256:
        timing = next(t for t in gpu.timings if t.candidate == gpu.engine)
        median = milliseconds(timing.latency.median_ms)
        return f"run on {gpu.machine.name}: median {median} ms at batch {timing.batch}, without transfers"
    if bench is not None and bench.not_run:
        return f"not run: {bench.not_run[0]}"
    if record.gpu is None:
        return "not run: no GPU on the machine that built it"
    return "not run: saq-qat bench measures it"


def engine_warnings(engines: tuple[BuiltFile, ...]) -> list[str]:
    """What to know of the engines before quoting anything of them."""
    return [
        f"{_name(engine.record)} engine: {engine.stale}; build it again: saq-qat build"
        for engine in engines
        if engine.stale
    ] + missed_layers(engines)


def missed_layers(engines: tuple[BuiltFile, ...]) -> list[str]:
    """Engines of this bundle in which quantized convolutions or products run in float, each as a sentence."""
    return [
        f"{_name(engine.record)} engine: {len(engine.record.audit.missed)} of {engine.record.audit.total} "
        "products are quantized but run in float"
        for engine in engines
        if engine.record.audit.missed and not engine.stale
    ]
