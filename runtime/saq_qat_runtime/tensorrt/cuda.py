"""A GPU through `cuda.bindings.runtime`; never torch."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from saq_qat_runtime.errors import BackendUnavailable, CudaError
from saq_qat_runtime.tensorrt.device import Address, Event, Graph, Stream
from saq_qat_runtime.tensorrt.driver import DriverStatus, driver_status

__all__ = ["CudaDevice", "open_device", "require_driver"]

_MODULE = "cuda.bindings.runtime"
_INSTALL = "Install it: pip install 'cuda-bindings>=12.9'"


class CudaDevice:
    """The first visible GPU; implements Device.

    cudart: the module cuda.bindings.runtime (https://nvidia.github.io/cuda-python/cuda-bindings), whose
    functions return a status and their results.
    """

    def __init__(self, cudart: Any, status: DriverStatus) -> None:
        self._cudart = cudart
        self._status = status

    @property
    def status(self) -> DriverStatus:
        """Name, compute capability and driver."""
        return self._status

    @property
    def runtime_version(self) -> str:
        """Version of the CUDA runtime library, such as "13.0"."""
        version = int(self._call(self._cudart.cudaRuntimeGetVersion))
        return f"{version // 1000}.{version % 1000 // 10}"

    def allocate(self, size: int) -> Address:
        """See Device."""
        return Address(int(self._call(self._cudart.cudaMalloc, size)))

    def free(self, address: Address) -> None:
        """See Device."""
        self._call(self._cudart.cudaFree, address)

    def allocate_host(self, size: int) -> Address:
        """See Device."""
        return Address(int(self._call(self._cudart.cudaMallocHost, size)))

    def free_host(self, address: Address) -> None:
        """See Device."""
        self._call(self._cudart.cudaFreeHost, address)

    def create_stream(self) -> Stream:
        """See Device."""
        flag = self._cudart.cudaStreamNonBlocking
        return Stream(int(self._call(self._cudart.cudaStreamCreateWithFlags, flag)))

    def destroy_stream(self, stream: Stream) -> None:
        """See Device."""
        self._call(self._cudart.cudaStreamDestroy, stream)

    def synchronize(self, stream: Stream) -> None:
        """See Device."""
        self._call(self._cudart.cudaStreamSynchronize, stream)

    def copy_to_device(self, target: Address, source: Address, size: int, stream: Stream) -> None:
        """See Device."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._cudart.cudaMemcpyAsync, target, source, size, kind, stream)

    def copy_to_host(self, target: Address, source: Address, size: int, stream: Stream) -> None:
        """See Device."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._cudart.cudaMemcpyAsync, target, source, size, kind, stream)

    def create_event(self) -> Event:
        """See Device."""
        return Event(int(self._call(self._cudart.cudaEventCreate)))

    def destroy_event(self, event: Event) -> None:
        """See Device."""
        self._call(self._cudart.cudaEventDestroy, event)

    def record(self, event: Event, stream: Stream) -> None:
        """See Device."""
        self._call(self._cudart.cudaEventRecord, event, stream)

    def wait(self, event: Event) -> None:
        """See Device."""
        self._call(self._cudart.cudaEventSynchronize, event)

    def elapsed(self, start: Event, end: Event) -> float:
        """See Device."""
        return float(self._call(self._cudart.cudaEventElapsedTime, start, end))

    def capture(self, stream: Stream, enqueue: Callable[[], bool]) -> Graph | None:
        """See Device; other threads may go on allocating memory meanwhile (thread-local mode)."""
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(self._cudart.cudaStreamBeginCapture, stream, mode)
        succeeded = False
        try:
            succeeded = enqueue()
        finally:
            # Also after a failure: a stream left in capture would refuse everything that follows.
            graph = self._instantiate(self._end_capture(stream), succeeded)
        return graph

    def launch(self, graph: Graph, stream: Stream) -> None:
        """See Device."""
        self._call(self._cudart.cudaGraphLaunch, graph, stream)

    def destroy_graph(self, graph: Graph) -> None:
        """See Device."""
        self._call(self._cudart.cudaGraphExecDestroy, graph)

    def _end_capture(self, stream: Stream) -> int | None:
        try:
            return int(self._call(self._cudart.cudaStreamEndCapture, stream))
        except CudaError as error:
            if error.refuses_capture:
                return None
            raise

    def _instantiate(self, template: int | None, complete: bool) -> Graph | None:
        """The executable graph of what was recorded, None unless it is complete; `template` is released."""
        if template is None:
            return None
        try:
            graph = self._call(self._cudart.cudaGraphInstantiate, template, 0) if complete else None
        finally:
            self._call(self._cudart.cudaGraphDestroy, template)
        return None if graph is None else Graph(int(graph))

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """The function's result; raises CudaError with its name and the status."""
        status, *results = function(*arguments)
        if status != self._cudart.cudaError_t.cudaSuccess:
            raise CudaError(function.__name__, status.name)
        return results[0] if results else None


def require_driver(status: DriverStatus) -> None:
    """Raise BackendUnavailable, with the reason, unless CUDA can be used here."""
    if not status.usable:
        raise BackendUnavailable(f"TensorRT engines need a GPU. {status.reason}")


def open_device() -> CudaDevice:
    """The first visible GPU.

    Raises BackendUnavailable where there is no driver, no GPU, or no cuda-bindings that suit the driver.
    """
    status = driver_status()
    require_driver(status)
    try:
        cudart = import_module(_MODULE)
    except ImportError as error:
        raise BackendUnavailable(f"TensorRT engines need {_MODULE}: {error}. {_INSTALL}") from error
    device = CudaDevice(cudart, status)
    try:
        device.destroy_stream(device.create_stream())
    except CudaError as error:
        rule = f"{error}; the driver supports CUDA {status.cuda}, cuda-bindings need {device.runtime_version}"
        raise BackendUnavailable(f"CUDA cannot be used: {rule}. Update the driver, or {_INSTALL}") from error
    return device
