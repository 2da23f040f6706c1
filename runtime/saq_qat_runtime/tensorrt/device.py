"""What the runtime asks of a GPU: memory, streams, copies, events, graphs."""

import ctypes
from collections.abc import Callable
from math import prod
from typing import NewType, Protocol

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.tensorrt.driver import DriverStatus

__all__ = ["Address", "Device", "Event", "Graph", "Stream", "host_array"]

Address = NewType("Address", int)
Stream = NewType("Stream", int)
Event = NewType("Event", int)
Graph = NewType("Graph", int)


class Device(Protocol):
    """One GPU. Every call raises CudaError, and may be made by any thread."""

    @property
    def status(self) -> DriverStatus:
        """Name, compute capability and driver."""

    @property
    def runtime_version(self) -> str:
        """Version of the CUDA runtime library, such as "13.0"."""

    def allocate(self, size: int) -> Address:
        """Device memory of `size` bytes, aligned to at least 256."""

    def free(self, address: Address) -> None:
        """Give device memory back; waits for the GPU."""

    def allocate_host(self, size: int) -> Address:
        """Page-locked host memory of `size` bytes: only from such memory are copies asynchronous."""

    def free_host(self, address: Address) -> None:
        """Give page-locked memory back."""

    def create_stream(self) -> Stream:
        """A stream that does not wait for the default stream."""

    def destroy_stream(self, stream: Stream) -> None:
        """Release a stream."""

    def synchronize(self, stream: Stream) -> None:
        """Wait for everything enqueued on `stream`; reports what failed there."""

    def copy_to_device(self, target: Address, source: Address, size: int, stream: Stream) -> None:
        """Enqueue a copy of `size` bytes from page-locked host memory."""

    def copy_to_host(self, target: Address, source: Address, size: int, stream: Stream) -> None:
        """Enqueue a copy of `size` bytes to page-locked host memory."""

    def create_event(self) -> Event:
        """An event that takes the time when the GPU reaches it."""

    def destroy_event(self, event: Event) -> None:
        """Release an event."""

    def record(self, event: Event, stream: Stream) -> None:
        """Enqueue `event`."""

    def wait(self, event: Event) -> None:
        """Wait until the GPU has reached `event`."""

    def elapsed(self, start: Event, end: Event) -> float:
        """Milliseconds between two events that the GPU has reached; its clock ticks in about 0.5 us."""

    def capture(self, stream: Stream, enqueue: Callable[[], bool]) -> Graph | None:
        """What `enqueue` puts on `stream`, recorded instead of run; it returns whether it succeeded.

        None if it did not, or if CUDA refuses to record it; the stream is then as it was before.
        """

    def launch(self, graph: Graph, stream: Stream) -> None:
        """Enqueue a captured graph."""

    def destroy_graph(self, graph: Graph) -> None:
        """Release a captured graph."""


def host_array(address: Address, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Host memory at `address` as a float32 array, valid until the memory is freed."""
    memory = (ctypes.c_float * prod(shape)).from_address(address)
    return np.ctypeslib.as_array(memory).reshape(shape)
