"""One CUDA stream with everything an engine needs on it: buffers, scratch memory, contexts, graphs."""

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import RuntimeFault
from saq_qat_runtime.tensorrt.device import Address, Device, Graph, Stream, host_array
from saq_qat_runtime.tensorrt.interface import PROFILE, EngineInterface
from saq_qat_runtime.tensorrt.library import EngineLog, RunLibrary

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["EngineStream", "LoadedEngine"]

_FLOAT_BYTES = 4
_SHAPES_KEPT = 4


@dataclass(frozen=True)
class LoadedEngine:
    """An engine in memory, its library and its GPU.

    capture: record CUDA graphs. creating: held while a context is made.
    """

    library: RunLibrary
    engine: "trt.ICudaEngine"
    log: EngineLog
    device: Device
    interface: EngineInterface
    capture: bool
    creating: Lock


@dataclass(frozen=True)
class _Buffer:
    """One tensor, at its largest, in page-locked host memory and on the GPU."""

    spec: TensorSpec
    values: NDArray[np.float32]
    host: Address
    device: Address

    def bytes(self, batch: int) -> int:
        return batch * prod(self.values.shape[1:]) * _FLOAT_BYTES


@dataclass
class _ShapedContext:
    """An execution context for one batch size, and its graph.

    A graph reads what its context holds, so a context whose graph is in use must keep its shape (TensorRT
    best practices, "CUDA Graphs"). refusal: why no graph could be captured.
    """

    context: "trt.IExecutionContext"
    runs: int = 0
    graph: Graph | None = None
    refusal: str = ""


class EngineStream:
    """Runs one batch at a time; whoever holds it, holds it alone.

    A batch size is run plainly the first time, then captured and replayed. Contexts of the last few batch
    sizes are kept; they share one scratch memory, since they never run at the same time.
    Raises CudaError where the GPU fails, RuntimeFault where TensorRT does.
    """

    def __init__(self, loaded: LoadedEngine) -> None:
        self._loaded = loaded
        self._device = loaded.device
        self._contexts: OrderedDict[int, _ShapedContext] = OrderedDict()
        with ExitStack() as stack:
            self._stream = self._device.create_stream()
            stack.callback(self._device.destroy_stream, self._stream)
            self._inputs = [self._allocate(spec, stack) for spec in loaded.interface.inputs]
            self._outputs = [self._allocate(spec, stack) for spec in loaded.interface.outputs]
            self._scratch_bytes = int(loaded.engine.device_memory_size_v2)
            self._scratch = self._allocate_device(max(self._scratch_bytes, 1), stack)
            stack.callback(self._release_contexts)
            stack.callback(self._device.synchronize, self._stream)
            self._owned = stack.pop_all()
        self._batch = 0

    @property
    def device(self) -> Device:
        """The GPU."""
        return self._device

    @property
    def stream(self) -> Stream:
        """Where everything is enqueued."""
        return self._stream

    @property
    def graph_captured(self) -> bool:
        """Whether the batch size that was run last replays a CUDA graph."""
        current = self._contexts.get(self._batch)
        return current is not None and current.graph is not None

    @property
    def capture_refusals(self) -> dict[int, str]:
        """Why graphs of these batch sizes could not be captured; they are enqueued kernel by kernel."""
        return {batch: shaped.refusal for batch, shaped in self._contexts.items() if shaped.refusal}

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """All outputs by name, in fresh arrays."""
        self.load(feeds)
        self.upload()
        self.enqueue()
        self.download()
        self._device.synchronize(self._stream)
        return {buffer.spec.name: buffer.values[: self._batch].copy() for buffer in self._outputs}

    def load(self, feeds: Mapping[str, NDArray[np.float32]]) -> None:
        """Put a batch into page-locked memory, and make ready for its size."""
        batch = len(feeds[self._inputs[0].spec.name])
        for buffer in self._inputs:
            buffer.values[:batch] = feeds[buffer.spec.name]
        if batch not in self._contexts:
            self._contexts[batch] = self._shaped(batch)
        self._contexts.move_to_end(batch)
        self._batch = batch

    def upload(self) -> None:
        """Enqueue the copies to the GPU."""
        for buffer in self._inputs:
            size = buffer.bytes(self._batch)
            self._device.copy_to_device(buffer.device, buffer.host, size, self._stream)

    def enqueue(self) -> None:
        """Enqueue the computation."""
        current = self._contexts[self._batch]
        if self._loaded.capture and current.runs > 0 and current.graph is None and not current.refusal:
            self._capture(current)
        if current.graph is not None:
            self._device.launch(current.graph, self._stream)
        elif not self._execute(current.context):
            reason = self._loaded.log.take()
            raise RuntimeFault(f"TensorRT could not enqueue a batch of {self._batch}: {reason}")
        current.runs += 1

    def download(self) -> None:
        """Enqueue the copies to page-locked memory."""
        for buffer in self._outputs:
            size = buffer.bytes(self._batch)
            self._device.copy_to_host(buffer.host, buffer.device, size, self._stream)

    def close(self) -> None:
        """Wait for the GPU and give everything back to it; may be called twice."""
        self._owned.close()

    def _capture(self, current: _ShapedContext) -> None:
        current.graph = self._device.capture(self._stream, lambda: self._execute(current.context))
        if current.graph is None:
            current.refusal = self._loaded.log.take()

    def _execute(self, context: "trt.IExecutionContext") -> bool:
        return bool(context.execute_async_v3(self._stream))

    def _shaped(self, batch: int) -> _ShapedContext:
        """A context for `batch`: a new one, or the one whose size was not needed for longest."""
        if len(self._contexts) < _SHAPES_KEPT:
            context = self._create_context()
        else:
            _, oldest = self._contexts.popitem(last=False)
            self._discard_graph(oldest)
            context = oldest.context
        for buffer in self._inputs:
            if not context.set_input_shape(buffer.spec.name, (batch, *buffer.values.shape[1:])):
                raise RuntimeFault(f"TensorRT refused a batch of {batch}: {self._loaded.log.take()}")
        missing = context.infer_shapes()
        if missing:
            raise RuntimeFault(
                f"TensorRT lacks the shapes of {missing}. Build the engine again: saq-qat-runtime build."
            )
        return _ShapedContext(context)

    def _create_context(self) -> "trt.IExecutionContext":
        strategy = self._loaded.library.ExecutionContextAllocationStrategy.USER_MANAGED
        with self._loaded.creating:
            context = self._loaded.engine.create_execution_context(strategy)
        if context is None:
            raise RuntimeFault(f"TensorRT could not create an execution context: {self._loaded.log.take()}")
        # Only the first context of an engine has a profile by itself; the switch runs ahead of any batch.
        if not context.set_optimization_profile_async(PROFILE, self._stream):
            raise RuntimeFault(f"TensorRT refused the optimization profile: {self._loaded.log.take()}")
        context.set_device_memory(self._scratch, self._scratch_bytes)
        for buffer in (*self._inputs, *self._outputs):
            context.set_tensor_address(buffer.spec.name, buffer.device)
        return context

    def _allocate(self, spec: TensorSpec, stack: ExitStack) -> _Buffer:
        shape = (self._loaded.interface.maximum, *(size for size in spec.shape[1:] if size != "N"))
        size = prod(shape) * _FLOAT_BYTES
        host = self._device.allocate_host(size)
        stack.callback(self._device.free_host, host)
        return _Buffer(spec, host_array(host, shape), host, self._allocate_device(size, stack))

    def _allocate_device(self, size: int, stack: ExitStack) -> Address:
        address = self._device.allocate(size)
        stack.callback(self._device.free, address)
        return address

    def _release_contexts(self) -> None:
        while self._contexts:
            self._discard_graph(self._contexts.popitem()[1])

    def _discard_graph(self, shaped: _ShapedContext) -> None:
        if shaped.graph is not None:
            self._device.destroy_graph(shaped.graph)
            shaped.graph = None
