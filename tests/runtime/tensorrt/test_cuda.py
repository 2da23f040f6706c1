"""CudaDevice on functions like those of cuda.bindings.runtime, and on the real ones without a GPU."""

from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from saq_qat_runtime.errors import BackendUnavailable, CudaError, RuntimeFault
from saq_qat_runtime.tensorrt import cuda
from saq_qat_runtime.tensorrt.cuda import CudaDevice, open_device, require_driver
from saq_qat_runtime.tensorrt.device import Address, Device, Event, Graph, Stream, host_array
from saq_qat_runtime.tensorrt.driver import DriverStatus, driver_status
from tests.runtime.fake_cuda import H100

Status = Enum(
    "Status",
    [
        "cudaSuccess",
        "cudaErrorMemoryAllocation",
        "cudaErrorIllegalAddress",
        "cudaErrorStreamCaptureInvalidated",
        "cudaErrorStreamCaptureUnsupported",
    ],
)
RESULTS = {
    "cudaRuntimeGetVersion": (12090,),
    "cudaMalloc": (4096,),
    "cudaMallocHost": (8192,),
    "cudaStreamCreateWithFlags": (3,),
    "cudaEventCreate": (4,),
    "cudaEventElapsedTime": (1.25,),
    "cudaStreamEndCapture": (5,),
    "cudaGraphInstantiate": (6,),
}
STREAM = Stream(3)


class FakeCudart:
    """Functions that note how they were called; `failures` are the statuses that some of them give."""

    cudaError_t = Status  # noqa: N815  the library's own names
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread")  # noqa: N815

    def __init__(self, **failures: Status) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._failures = failures

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        def function(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            status = self._failures.get(name, Status.cudaSuccess)
            return (status, *RESULTS.get(name, ())) if status is Status.cudaSuccess else (status, None)

        function.__name__ = name
        return function


def test_calls_cuda_by_its_names_and_hands_out_plain_integers() -> None:
    cudart = FakeCudart()
    device: Device = CudaDevice(cudart, H100)
    assert device.status is H100
    assert device.runtime_version == "12.9"
    memory, host, stream, event = (
        device.allocate(64),
        device.allocate_host(32),
        device.create_stream(),
        device.create_event(),
    )
    assert (memory, host, stream, event) == (4096, 8192, 3, 4)
    device.copy_to_device(memory, host, 16, stream)
    device.copy_to_host(host, memory, 8, stream)
    device.record(event, stream)
    device.wait(event)
    assert device.elapsed(event, event) == 1.25
    device.synchronize(stream)
    device.launch(Graph(6), stream)
    device.destroy_graph(Graph(6))
    device.destroy_event(event)
    device.destroy_stream(stream)
    device.free_host(host)
    device.free(memory)
    assert cudart.calls == [
        ("cudaRuntimeGetVersion",),
        ("cudaMalloc", 64),
        ("cudaMallocHost", 32),
        ("cudaStreamCreateWithFlags", 1),
        ("cudaEventCreate",),
        ("cudaMemcpyAsync", 4096, 8192, 16, 1, 3),
        ("cudaMemcpyAsync", 8192, 4096, 8, 2, 3),
        ("cudaEventRecord", 4, 3),
        ("cudaEventSynchronize", 4),
        ("cudaEventElapsedTime", 4, 4),
        ("cudaStreamSynchronize", 3),
        ("cudaGraphLaunch", 6, 3),
        ("cudaGraphExecDestroy", 6),
        ("cudaEventDestroy", 4),
        ("cudaStreamDestroy", 3),
        ("cudaFreeHost", 8192),
        ("cudaFree", 4096),
    ]


def test_a_failure_says_which_call_and_which_error() -> None:
    device = CudaDevice(FakeCudart(cudaStreamSynchronize=Status.cudaErrorIllegalAddress), H100)
    with pytest.raises(
        RuntimeFault, match=r"cudaStreamSynchronize failed: cudaErrorIllegalAddress\. Restart"
    ):
        device.synchronize(STREAM)
    with pytest.raises(CudaError, match=r"Free GPU memory") as caught:
        CudaDevice(FakeCudart(cudaMalloc=Status.cudaErrorMemoryAllocation), H100).allocate(1)
    assert caught.value.out_of_memory
    assert not caught.value.refuses_capture


def capture(cudart: FakeCudart, succeeds: bool = True) -> tuple[Graph | None, list[str]]:
    def enqueue() -> bool:
        cudart.calls.append(("enqueue",))
        return succeeds

    graph = CudaDevice(cudart, H100).capture(STREAM, enqueue)
    return graph, [call[0] for call in cudart.calls]


BEGIN, END = ["cudaStreamBeginCapture", "enqueue"], ["cudaStreamEndCapture"]


def test_captures_in_thread_local_mode_and_keeps_the_executable_graph_alone() -> None:
    cudart = FakeCudart()
    graph, calls = capture(cudart)
    assert graph == 6
    assert calls == [*BEGIN, *END, "cudaGraphInstantiate", "cudaGraphDestroy"]
    assert cudart.calls[0] == ("cudaStreamBeginCapture", 3, "thread")
    assert cudart.calls[-1] == ("cudaGraphDestroy", 5)


def test_a_refused_capture_is_ended_and_gives_no_graph() -> None:
    refused = FakeCudart(cudaStreamEndCapture=Status.cudaErrorStreamCaptureInvalidated)
    assert capture(refused) == (None, [*BEGIN, *END])
    assert capture(FakeCudart(), succeeds=False) == (None, [*BEGIN, *END, "cudaGraphDestroy"])


def test_a_capture_is_ended_whatever_happens_in_it() -> None:
    cudart = FakeCudart()

    def fail() -> bool:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        CudaDevice(cudart, H100).capture(STREAM, fail)
    assert [call[0] for call in cudart.calls] == [
        "cudaStreamBeginCapture",
        "cudaStreamEndCapture",
        "cudaGraphDestroy",
    ]


def test_other_errors_of_a_capture_are_faults() -> None:
    with pytest.raises(CudaError, match="cudaStreamEndCapture failed: cudaErrorIllegalAddress"):
        capture(FakeCudart(cudaStreamEndCapture=Status.cudaErrorIllegalAddress))
    with pytest.raises(CudaError, match="cudaGraphInstantiate"):
        capture(FakeCudart(cudaGraphInstantiate=Status.cudaErrorMemoryAllocation))


def test_a_host_array_is_the_memory_itself() -> None:
    memory = np.zeros(6, np.float32)
    view = host_array(Address(memory.ctypes.data), (2, 3))
    view[1, 2] = 7
    assert view.dtype == np.float32
    assert memory[5] == 7


def test_opens_no_device_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    monkeypatch.setattr(cuda, "driver_status", lambda: DriverStatus(False, "There is no CUDA driver."))
    monkeypatch.setattr(cuda, "import_module", imported.append)
    with pytest.raises(BackendUnavailable, match=r"TensorRT engines need a GPU\. There is no CUDA driver\."):
        open_device()
    assert imported == []
    require_driver(H100)


def test_opens_the_gpu_through_cuda_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "driver_status", lambda: H100)
    monkeypatch.setattr(cuda, "import_module", lambda name: FakeCudart())
    assert open_device().status is H100


def test_missing_bindings_are_named_with_the_way_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(cuda, "driver_status", lambda: H100)
    monkeypatch.setattr(cuda, "import_module", fail)
    with pytest.raises(
        BackendUnavailable, match=r"cuda\.bindings\.runtime.*pip install 'cuda-bindings>=12\.9'"
    ):
        open_device()


def test_a_driver_too_old_for_the_bindings_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    too_old = FakeCudart(cudaStreamCreateWithFlags=Status.cudaErrorIllegalAddress)
    monkeypatch.setattr(cuda, "driver_status", lambda: H100)
    monkeypatch.setattr(cuda, "import_module", lambda name: too_old)
    with pytest.raises(BackendUnavailable, match=r"supports CUDA 13\.0, cuda-bindings need 12\.9\. Update"):
        open_device()


def test_the_real_bindings_have_every_name_and_fail_by_name_without_a_gpu() -> None:
    cudart = pytest.importorskip("cuda.bindings.runtime", reason="needs the extra trt or rtx")
    if driver_status().usable:
        pytest.skip("this machine has a GPU")
    device = CudaDevice(cudart, H100)
    assert int(device.runtime_version.split(".")[0]) >= 12
    address, event, graph = Address(0), Event(0), Graph(0)
    calls: list[Callable[[], object]] = [
        lambda: device.allocate(16),
        lambda: device.free(Address(16)),
        lambda: device.allocate_host(16),
        lambda: device.free_host(Address(16)),
        lambda: device.create_stream(),
        lambda: device.destroy_stream(STREAM),
        lambda: device.synchronize(STREAM),
        lambda: device.copy_to_device(address, address, 4, STREAM),
        lambda: device.copy_to_host(address, address, 4, STREAM),
        lambda: device.create_event(),
        lambda: device.destroy_event(event),
        lambda: device.record(event, STREAM),
        lambda: device.wait(event),
        lambda: device.elapsed(event, event),
        lambda: device.capture(STREAM, lambda: True),
        lambda: device.launch(graph, STREAM),
        lambda: device.destroy_graph(graph),
        lambda: device._end_capture(STREAM),
        lambda: device._instantiate(0, True),
    ]
    for call in calls:
        with pytest.raises(CudaError, match=r"cudaErrorInsufficientDriver|cudaErrorNoDevice"):
            call()
