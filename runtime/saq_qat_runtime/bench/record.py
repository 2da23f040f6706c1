"""What a latency measurement found, as plain records that are written to and read from JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from saq_qat_runtime.bench.environment import Environment
from saq_qat_runtime.bench.gpu_record import GpuBench
from saq_qat_runtime.bench.interleave import Latency, LatencySummary
from saq_qat_runtime.bench.paired import Ratio
from saq_qat_runtime.bundle.records import Sizes
from saq_qat_runtime.bundle.result_files import decode_result, read_result, write_result
from saq_qat_runtime.kernels import IntegerCount

__all__ = [
    "BUNDLE",
    "BUNDLE_OPENVINO",
    "FLOAT",
    "FLOAT_OPENVINO",
    "NNCF_INT8",
    "STATIC_INT8",
    "Bench",
    "Candidate",
    "Ratio",
    "Samples",
    "Timing",
    "read_bench",
    "write_bench",
]

BUNDLE, BUNDLE_OPENVINO = "bundle, ONNX Runtime", "bundle, OpenVINO"
FLOAT = "float32, ONNX Runtime"
STATIC_INT8 = "static int8, ONNX Runtime"
FLOAT_OPENVINO, NNCF_INT8 = "float32, OpenVINO", "NNCF int8, OpenVINO"

SCHEMA_VERSION = 4
_FIX = "Run 'saq-qat bench' again."

Samples = Mapping[int, Mapping[str, Latency]]
"""Raw latencies by batch size and candidate."""


@dataclass(frozen=True)
class Candidate:
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
    """Latency of one candidate at one batch size.

    Attributes:
        over_float, over_int8: speed relative to float32 and static int8 on ONNX Runtime; over_nncf: to NNCF's
        int8 on OpenVINO. None where these did not take turns with it, or fewer than five.
        cautions: what to know before quoting it.
    """

    candidate: str
    batch: int
    latency: LatencySummary
    images_per_second: float
    over_float: Ratio | None
    over_int8: Ratio | None
    over_nncf: Ratio | None
    cautions: tuple[str, ...]


@dataclass(frozen=True)
class Bench:
    """A whole measurement, made by one process in one go.

    Attributes:
        created: UTC, ISO 8601.
        checkpoint_sha256: of the model.safetensors that bundle and baselines have their weights from.
        bundle_sha256: of the bundle's manifest.json.
        threads: of each engine on the CPU. seconds: of measuring, per batch size and group of candidates.
        timings: on the CPU. gpu: None if no engine ran there.
        not_run: engines that could not take part, each with the reason.
        environment: of the machine, read before measuring.
    """

    schema_version: int
    created: str
    name: str
    checkpoint_sha256: str
    bundle_sha256: str
    gate_passed: bool
    threads: int
    seconds: float
    accuracy_images: int
    candidates: tuple[Candidate, ...]
    timings: tuple[Timing, ...]
    gpu: GpuBench | None
    not_run: tuple[str, ...]
    sizes: Sizes
    environment: Environment
    notes: tuple[str, ...]

    def timing(self, candidate: str, batch: int) -> Timing | None:
        """Of this candidate at this batch size, if it was measured."""
        return next((t for t in self.timings if (t.candidate, t.batch) == (candidate, batch)), None)

    def candidate(self, name: str) -> Candidate | None:
        """The candidate of that name, if it took part."""
        return next((c for c in self.candidates if c.name == name), None)

    @property
    def bundle(self) -> str:
        """What the bundle itself is called: on ONNX Runtime, or on OpenVINO where that alone ran it."""
        return BUNDLE_OPENVINO if self.candidate(BUNDLE) is None else BUNDLE

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes in the order they were measured."""
        return tuple(dict.fromkeys(timing.batch for timing in self.timings))


def write_bench(bench: Bench, samples: Samples, folder: Path) -> Path:
    """Write ``bench.json`` and give its path; all samples in nanoseconds go to ``samples.json`` beside it.

    Raises:
        ResultError: a number is not finite, or a file cannot be written.
    """
    raw = {
        str(batch): {name: latency.samples for name, latency in by_name.items()}
        for batch, by_name in samples.items()
    }
    head = {
        "schema_version": SCHEMA_VERSION,
        "created": bench.created,
        "checkpoint_sha256": bench.checkpoint_sha256,
        "bundle_sha256": bench.bundle_sha256,
    }
    write_result(folder / "samples.json", {**head, "nanoseconds": raw})
    path = folder / "bench.json"
    write_result(path, asdict(bench))
    return path


def read_bench(path: Path) -> Bench:
    """Read ``bench.json``.

    Raises:
        VersionError: it is of another version. ModelError: it is damaged.
    """
    return decode_result(Bench, read_result(path, SCHEMA_VERSION, _FIX), path, _FIX)
