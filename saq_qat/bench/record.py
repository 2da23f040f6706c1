"""What a latency measurement found, as plain records that are written to and read from JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from saq_qat.bench.gpu_record import GpuBench
from saq_qat.bench.paired import Ratio
from saq_qat.errors import ArtifactError
from saq_qat.train.files import write_whole
from saq_qat_runtime.bench.environment import Environment
from saq_qat_runtime.bench.interleave import Latency, LatencySummary
from saq_qat_runtime.bundle.decode import decode, parse_json, require
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.bundle.records import Sizes
from saq_qat_runtime.errors import ModelError
from saq_qat_runtime.kernels import IntegerCount

__all__ = [
    "BUNDLE",
    "FLOAT",
    "STATIC_INT8",
    "Bench",
    "Contestant",
    "Ratio",
    "Samples",
    "Timing",
    "bundle_digest",
    "read_bench",
    "write_bench",
]

BUNDLE = "bundle, ONNX Runtime"
FLOAT = "float32, ONNX Runtime"
STATIC_INT8 = "static int8, ONNX Runtime"

SCHEMA_VERSION = 2

Samples = Mapping[int, Mapping[str, Latency]]
"""Raw latencies by batch size and contestant."""


@dataclass(frozen=True)
class Contestant:
    """One way to run the network.

    Attributes:
        engine: with its version.
        file_bytes: of its model file; None where there is none.
        integer: counted in the graph the engine runs; None where the engine does not say.
        top1: percent of ``Bench.accuracy_images``; None if not measured.
    """

    name: str
    engine: str
    network: str
    file_bytes: int | None
    integer: IntegerCount | None
    top1: float | None


@dataclass(frozen=True)
class Timing:
    """Latency of one contestant at one batch size.

    Attributes:
        over_float, over_int8: speed relative to float32 and static int8 on ONNX Runtime; None where these did
        not take turns with it.
        cautions: what to know before quoting it.
    """

    contestant: str
    batch: int
    latency: LatencySummary
    images_per_second: float
    over_float: Ratio | None
    over_int8: Ratio | None
    cautions: tuple[str, ...]


@dataclass(frozen=True)
class Bench:
    """A whole measurement, made by one process in one go.

    Attributes:
        created: UTC, ISO 8601. model_sha256: see ``bundle_digest``.
        threads: of each engine on the CPU. seconds: of measuring, per batch size and group of contestants.
        timings: on the CPU. gpu: None if no engine ran there.
        not_run: engines that could not take part, each with the reason.
        environment: of the machine, read before measuring.
    """

    schema_version: int
    created: str
    name: str
    model_sha256: str
    gate_passed: bool
    threads: int
    seconds: float
    accuracy_images: int
    contestants: tuple[Contestant, ...]
    timings: tuple[Timing, ...]
    gpu: GpuBench | None
    not_run: tuple[str, ...]
    sizes: Sizes
    environment: Environment
    notes: tuple[str, ...]

    def timing(self, contestant: str, batch: int) -> Timing | None:
        """Of this contestant at this batch size, if it was measured."""
        return next((t for t in self.timings if (t.contestant, t.batch) == (contestant, batch)), None)

    def contestant(self, name: str) -> Contestant | None:
        """The contestant of that name, if it took part."""
        return next((c for c in self.contestants if c.name == name), None)

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes in the order they were measured."""
        return tuple(dict.fromkeys(timing.batch for timing in self.timings))


def bundle_digest(manifest: Manifest) -> str:
    """SHA-256 of the model that stands for a bundle: that for ONNX Runtime, where there is one."""
    models = manifest.models
    return next(models[target] for target in ("onnxruntime", *models) if target in models).sha256


def write_bench(bench: Bench, samples: Samples, folder: Path) -> Path:
    """Write ``bench.json`` and give its path; all samples in nanoseconds go to ``samples.json`` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {
        str(batch): {name: latency.samples for name, latency in by_name.items()}
        for batch, by_name in samples.items()
    }
    write_whole(folder / "samples.json", json.dumps(raw).encode())
    path = folder / "bench.json"
    write_whole(path, (json.dumps(asdict(bench), indent=2) + "\n").encode())
    return path


def read_bench(path: Path) -> Bench:
    """Read ``bench.json``.

    Raises:
        ArtifactError: it is damaged or of another version.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"), path.name)
        version = value.get("schema_version") if isinstance(value, dict) else None
        require(version == SCHEMA_VERSION, f"it has schema_version {version}, this reads {SCHEMA_VERSION}.")
        return decode(Bench, value, path.name)
    except (OSError, UnicodeDecodeError, ModelError) as error:
        raise ArtifactError(
            f"{path} cannot be read as a measurement: {error} Run 'saq-qat bench' again."
        ) from error
