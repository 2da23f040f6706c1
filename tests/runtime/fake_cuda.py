"""A GPU made of numpy memory: what is enqueued runs when somebody waits for it, and not before."""

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from saq_qat_runtime.errors import CudaError
from saq_qat_runtime.tensorrt.device import Address, Event, Graph, Stream
from saq_qat_runtime.tensorrt.driver import DriverStatus

__all__ = ["H100", "FakeDevice"]

H100 = DriverStatus(True, "", "NVIDIA H100 80GB HBM3", "9.0", "13.0", "580.65.06")
_COPY_NANOSECONDS = 2_000
_LAUNCH_NANOSECONDS = 5_000


@dataclass
class Operation:
    """nanoseconds: what it takes on the GPU. enqueued: when the host asked for it, in nanoseconds."""

    run: Callable[[], None]
    nanoseconds: int
    enqueued: int


class FakeDevice:
    """Implements Device; every misuse that a GPU would answer with wrong numbers raises here.

    memory: bytes that may be allocated on the device. captures: whether graphs can be recorded.
    now, host_now: clocks of GPU and host in nanoseconds, moved on by work and by waiting alone.
    """

    def __init__(self, status: DriverStatus = H100, *, memory: int = 1 << 30, captures: bool = True) -> None:
        self.status = status
        self.runtime_version = "13.0"
        self.captures = captures
        self.now = 0
        self.host_now = 0
        self.launches = 0
        self.synchronizations = 0
        self.sticky: str | None = None
        self._memory = memory
        self._lock = threading.RLock()
        self._blocks: dict[int, tuple[str, np.ndarray[tuple[int], np.dtype[np.uint8]]]] = {}
        self._queues: dict[int, list[Operation]] = {}
        self._recording: dict[int, list[Operation]] = {}
        self._graphs: dict[int, list[Operation]] = {}
        self._events: dict[int, int | None] = {}
        self._handles = iter(range(1, 1 << 30))

    @property
    def live(self) -> int:
        """Blocks, streams, events and graphs that nobody has given back."""
        return len(self._blocks) + len(self._queues) + len(self._graphs) + len(self._events)

    def is_capturing(self, stream: int) -> bool:
        return stream in self._recording

    def enqueue(self, stream: int, run: Callable[[], None], nanoseconds: int) -> None:
        """What a library does: put a kernel on a stream."""
        with self._lock:
            self._check("cudaLaunchKernel")
            target = self._recording.get(stream, self._queues[stream])
            target.append(Operation(run, nanoseconds, self.host_now))

    def check_range(self, address: int, size: int, kind: str) -> None:
        found, block = self._blocks[address]
        assert found == kind, f"{address} is {found} memory"
        assert size <= len(block), f"{size} bytes of {len(block)}"

    def allocate(self, size: int) -> Address:
        held = sum(len(block) for kind, block in self._blocks.values() if kind == "device")
        self._check("cudaMalloc")
        if held + size > self._memory:
            raise CudaError("cudaMalloc", "cudaErrorMemoryAllocation")
        return self._block("device", size)

    def free(self, address: Address) -> None:
        self._check("cudaFree")
        self.check_range(address, 0, "device")
        with self._lock:
            del self._blocks[address]

    def allocate_host(self, size: int) -> Address:
        self._check("cudaMallocHost")
        return self._block("host", size)

    def free_host(self, address: Address) -> None:
        self._check("cudaFreeHost")
        self.check_range(address, 0, "host")
        with self._lock:
            del self._blocks[address]

    def create_stream(self) -> Stream:
        self._check("cudaStreamCreateWithFlags")
        with self._lock:
            handle = next(self._handles)
            self._queues[handle] = []
        return Stream(handle)

    def destroy_stream(self, stream: Stream) -> None:
        self._check("cudaStreamDestroy")
        assert not self._queues.pop(stream), "destroyed while busy"

    def synchronize(self, stream: Stream) -> None:
        with self._lock:
            assert stream not in self._recording, "synchronized while recording"
            self.synchronizations += 1
            operations, self._queues[stream] = self._queues[stream], []
            for operation in operations:
                self._check("cudaStreamSynchronize")
                self._run(operation)
            self._check("cudaStreamSynchronize")
            self.host_now = max(self.host_now, self.now)

    def copy_to_device(self, target: Address, source: Address, size: int, stream: Stream) -> None:
        self.check_range(source, size, "host")
        self.check_range(target, size, "device")
        self.enqueue(stream, lambda: _move(target, source, size), _COPY_NANOSECONDS)

    def copy_to_host(self, target: Address, source: Address, size: int, stream: Stream) -> None:
        self.check_range(source, size, "device")
        self.check_range(target, size, "host")
        self.enqueue(stream, lambda: _move(target, source, size), _COPY_NANOSECONDS)

    def create_event(self) -> Event:
        with self._lock:
            handle = next(self._handles)
            self._events[handle] = None
        return Event(handle)

    def destroy_event(self, event: Event) -> None:
        del self._events[event]

    def record(self, event: Event, stream: Stream) -> None:
        def take_time() -> None:
            self._events[event] = self.now

        self._events[event] = None
        self.enqueue(stream, take_time, 0)

    def wait(self, event: Event) -> None:
        """Runs streams only as far as the event, so that what comes after it stays to be done."""
        with self._lock:
            for queue in self._queues.values():
                while self._events[event] is None and queue:
                    self._run(queue.pop(0))
            self.host_now = max(self.host_now, self._events[event] or 0)

    def elapsed(self, start: Event, end: Event) -> float:
        first, last = self._events[start], self._events[end]
        assert first is not None and last is not None, "an event that was not reached"
        return (last - first) / 1e6

    def capture(self, stream: Stream, enqueue: Callable[[], bool]) -> Graph | None:
        self._check("cudaStreamBeginCapture")
        self._recording[stream] = []
        try:
            succeeded = enqueue()
        finally:
            operations = self._recording.pop(stream)
        if not (succeeded and self.captures):
            return None
        with self._lock:
            handle = next(self._handles)
            self._graphs[handle] = operations
        return Graph(handle)

    def launch(self, graph: Graph, stream: Stream) -> None:
        with self._lock:
            self._check("cudaGraphLaunch")
            self.launches += 1
            self.host_now += _LAUNCH_NANOSECONDS
            for operation in self._graphs[graph]:
                self.enqueue(stream, operation.run, operation.nanoseconds)

    def destroy_graph(self, graph: Graph) -> None:
        self._check("cudaGraphExecDestroy")
        del self._graphs[graph]

    def _run(self, operation: Operation) -> None:
        """The GPU begins when it is free, and not before it was asked."""
        self.now = max(self.now, operation.enqueued) + operation.nanoseconds
        operation.run()

    def _block(self, kind: str, size: int) -> Address:
        block = np.full(size, 0xFF, np.uint8)  # NaN, until something is written
        address = block.ctypes.data
        with self._lock:
            self._blocks[address] = (kind, block)
        return Address(address)

    def _check(self, call: str) -> None:
        if self.sticky is not None:
            raise CudaError(call, self.sticky)


def _move(target: int, source: int, size: int) -> None:
    ctypes.memmove(target, source, size)
