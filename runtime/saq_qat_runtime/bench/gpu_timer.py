"""One engine timed by CUDA events on its stream, with the next run always enqueued ahead."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from saq_qat_runtime.bench.latency import Latency
from saq_qat_runtime.tensorrt.device import Device, Event, Stream

__all__ = ["RUNS_PER_TURN", "Clock", "GpuLatency", "GpuTimer", "TimedRun"]

Clock = Callable[[], int]
RUNS_PER_TURN = 10
_NANOSECONDS = 1_000_000_000


class TimedRun(Protocol):
    """One batch on a stream, step by step, as TensorRtBackend.lend gives it."""

    @property
    def device(self) -> Device:
        """The GPU."""

    @property
    def stream(self) -> Stream:
        """Where the steps are enqueued."""

    @property
    def graph_captured(self) -> bool:
        """Whether `enqueue` replays a CUDA graph."""

    def upload(self) -> None:
        """Enqueue the copies to the GPU."""

    def enqueue(self) -> None:
        """Enqueue the computation."""

    def download(self) -> None:
        """Enqueue the copies to the host."""


@dataclass(frozen=True)
class GpuLatency:
    """One batch, sample by sample: computation and copies on the GPU's clock, enqueuing on the host's.

    upload, download: None if the copies were left out. graph: the computation was a CUDA graph.
    """

    compute: Latency
    enqueue: Latency
    upload: Latency | None
    download: Latency | None
    graph: bool

    @property
    def total(self) -> Latency:
        """Computation and copies together."""
        if self.upload is None or self.download is None:
            return self.compute
        parts = zip(self.upload.samples, self.compute.samples, self.download.samples, strict=True)
        return Latency(tuple(sum(part) for part in parts))


@dataclass(frozen=True)
class _Marks:
    """Events of one run, in the order they are recorded."""

    start: Event
    uploaded: Event
    computed: Event
    end: Event


@dataclass(frozen=True)
class _Sample:
    """Nanoseconds of one run."""

    upload: int
    compute: int
    download: int
    enqueue: int


class GpuTimer:
    """Times one engine turn by turn.

    transfers: copy the batch in and out each time; otherwise it is copied in once. stack: gives events back.
    """

    def __init__(self, run: TimedRun, transfers: bool, clock: Clock, stack: ExitStack) -> None:
        self._run = run
        self._device = run.device
        self._transfers = transfers
        self._clock = clock
        self._samples: list[_Sample] = []
        self._marks = [self._create_marks(stack) for _ in range(2)]
        run.upload()

    def warm_up(self, seconds: float) -> None:
        """Run for a time, uncounted; long enough for a graph to be captured."""
        end = self._clock() + round(seconds * _NANOSECONDS)
        list(self._runs(RUNS_PER_TURN))
        while self._clock() < end:
            list(self._runs(RUNS_PER_TURN))

    def turn(self, count: int) -> None:
        """`count` runs that are counted, and the GPU idle afterwards."""
        self._samples += self._runs(count)

    def latency(self) -> GpuLatency:
        """All turns so far."""
        samples = self._samples
        return GpuLatency(
            compute=Latency(tuple(sample.compute for sample in samples)),
            enqueue=Latency(tuple(sample.enqueue for sample in samples)),
            upload=Latency(tuple(sample.upload for sample in samples)) if self._transfers else None,
            download=Latency(tuple(sample.download for sample in samples)) if self._transfers else None,
            graph=self._run.graph_captured,
        )

    def _runs(self, count: int) -> Iterator[_Sample]:
        """One run more than `count`, the next always enqueued before the last is waited for."""
        first = self._start(self._marks[0])
        for index in range(1, count + 1):
            second = self._start(self._marks[index % 2])
            sample = self._finish(self._marks[(index - 1) % 2], first)
            if index > 1:
                yield sample
            first = second
        yield self._finish(self._marks[count % 2], first)

    def _start(self, marks: _Marks) -> int:
        """Enqueue one run; returns how long the host took for the computation."""
        stream = self._run.stream
        self._device.record(marks.start, stream)
        if self._transfers:
            self._run.upload()
        self._device.record(marks.uploaded, stream)
        before = self._clock()
        self._run.enqueue()
        enqueue = self._clock() - before
        self._device.record(marks.computed, stream)
        if self._transfers:
            self._run.download()
        self._device.record(marks.end, stream)
        return enqueue

    def _finish(self, marks: _Marks, enqueue: int) -> _Sample:
        self._device.wait(marks.end)
        upload, compute, download = (
            round(self._device.elapsed(start, end) * 1e6)
            for start, end in (
                (marks.start, marks.uploaded),
                (marks.uploaded, marks.computed),
                (marks.computed, marks.end),
            )
        )
        return _Sample(upload, compute, download, enqueue)

    def _create_marks(self, stack: ExitStack) -> _Marks:
        return _Marks(*(self._create_event(stack) for _ in range(4)))

    def _create_event(self, stack: ExitStack) -> Event:
        event = self._device.create_event()
        stack.callback(self._device.destroy_event, event)
        return event
