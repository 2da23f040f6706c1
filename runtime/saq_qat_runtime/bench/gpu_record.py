"""What a measurement on a GPU found, as plain records; part of ``bench_record.Bench``."""

from dataclasses import dataclass

from saq_qat_runtime.bench.gpu_machine import GpuMachine
from saq_qat_runtime.bench.interleave import LatencySummary
from saq_qat_runtime.bench.paired import Ratio

__all__ = ["GpuBench", "GpuTiming"]


@dataclass(frozen=True)
class GpuTiming:
    """Latency of one engine at one batch size, on the GPU's clock.

    Attributes:
        transfers: whether the copies to the GPU and back are part of it.
        enqueue_ms: what the host took to enqueue the computation, median.
        graph: whether the computation was replayed as a CUDA graph.
        over_float32, over_float16: speed relative to these engines of the same network, run in turns with it;
        None where they did not take part.
        cautions: what to know before quoting it.
    """

    candidate: str
    batch: int
    transfers: bool
    latency: LatencySummary
    images_per_second: float
    enqueue_ms: float
    graph: bool
    over_float32: Ratio | None
    over_float16: Ratio | None
    cautions: tuple[str, ...]


@dataclass(frozen=True)
class GpuBench:
    """The bundle's engine beside float engines of the same network.

    Attributes:
        backend, version: of the library that ran them all. engine: name of the bundle's candidate.
        engine_sha256: of its file.
        golden_difference: largest absolute difference of its golden logits from the bundle's.
        golden_tolerance: what the bundle allows.
    """

    backend: str
    version: str
    engine: str
    engine_sha256: str
    golden_difference: float
    golden_tolerance: float
    machine: GpuMachine
    timings: tuple[GpuTiming, ...]

    @property
    def computes_golden(self) -> bool:
        """Whether the bundle's engine gives the golden logits; what is not a number does not."""
        return self.golden_difference <= self.golden_tolerance

    def timing(self, candidate: str, batch: int, *, transfers: bool) -> GpuTiming | None:
        """Of this candidate, if it was measured so."""
        wanted = (candidate, batch, transfers)
        return next((t for t in self.timings if (t.candidate, t.batch, t.transfers) == wanted), None)
