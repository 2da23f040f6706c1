"""TensorRT engines on an NVIDIA GPU, by the library they were built for: full, lean or RTX."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import BackendUnavailable, InputError
from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.tensorrt.checks import check_content, check_gpu, check_library, check_version
from saq_qat_runtime.tensorrt.cuda import open_device
from saq_qat_runtime.tensorrt.device import Device
from saq_qat_runtime.tensorrt.engine_record import EngineRecord
from saq_qat_runtime.tensorrt.interface import EngineInterface, read_interface
from saq_qat_runtime.tensorrt.library import EngineLibrary, EngineLog, RunLibrary, engine_log, import_library
from saq_qat_runtime.tensorrt.stream import EngineStream, LoadedEngine
from saq_qat_runtime.tensorrt.stream_pool import StreamPool

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["Machine", "TensorRtBackend"]

_STREAMS = 4


@dataclass(frozen=True)
class Machine:
    """How to reach the GPU and the engine libraries; tests put a machine of their own in its place."""

    device: Callable[[], Device] = open_device
    library: Callable[[EngineLibrary], RunLibrary] = import_library


class TensorRtBackend:
    """One engine on one GPU; implements Backend.

    content: the serialized engine, whose hash must be that of `record`. library: what is to run it.
    streams: how many calls may use the GPU at the same time, each with buffers of its own; more calls wait.
    A batch larger than the engine's profile is run in pieces.
    Raises ModelError for an engine that is not the recorded one or has another interface than we use,
    BackendUnavailable where driver, GPU or library are missing or of another kind than the engine needs.
    """

    def __init__(
        self,
        content: bytes,
        record: EngineRecord,
        library: EngineLibrary,
        *,
        machine: Machine | None = None,
        streams: int = _STREAMS,
    ) -> None:
        machine = machine or Machine()
        check_content(content, record)
        check_library(record, library)
        device = machine.device()
        check_gpu(record, device.status)
        module = machine.library(library)
        self._version = str(module.__version__)
        check_version(record, library, self._version)
        self._library = library
        self._record = record
        log = engine_log(module)
        engine = _deserialize(module, log, content, record)
        self._engine: trt.ICudaEngine | None = engine
        self._interface = read_interface(module, engine)
        capture = library.captures_dynamic_shapes or not self._interface.dynamic
        loaded = LoadedEngine(module, engine, log, device, self._interface, capture, Lock())
        self._pool = StreamPool(lambda: EngineStream(loaded), streams)
        # At the end of the process CUDA may be gone already, and gives everything back itself.
        weakref.finalize(self, self._pool.close).atexit = False

    @property
    def name(self) -> str:
        """The library: "tensorrt", "tensorrt-lean" or "tensorrt-rtx"."""
        return self._library.backend

    @property
    def version(self) -> str:
        """Version of the library."""
        return self._version

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the engine takes."""
        return self._interface.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the engine gives."""
        return self._interface.outputs

    @property
    def graph_captured(self) -> bool:
        """Whether every stream replayed a CUDA graph in its last call; False before the first call."""
        streams = self._pool.streams
        return bool(streams) and all(stream.graph_captured for stream in streams)

    @property
    def capture_refusals(self) -> tuple[str, ...]:
        """Why CUDA graphs could not be captured; what was refused is enqueued kernel by kernel."""
        refusals = [stream.capture_refusals for stream in self._pool.streams]
        return tuple(f"batch {batch}: {why}" for found in refusals for batch, why in sorted(found.items()))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name; see Backend. Raises InputError for what the engine cannot take."""
        batch = _check_feeds(feeds, self._interface)
        pieces = _pieces(batch, self._interface.minimum, self._interface.maximum)
        with self._pool.lend() as stream:
            if len(pieces) == 1:
                return dict(stream.run(feeds))
            parts = [stream.run({name: array[piece] for name, array in feeds.items()}) for piece in pieces]
        names = [spec.name for spec in self._interface.outputs]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    @contextmanager
    def lend(self, feeds: Mapping[str, NDArray[np.float32]]) -> Iterator[EngineStream]:
        """A stream that holds one batch, to be timed step by step; raises InputError as `run` does."""
        batch, largest = _check_feeds(feeds, self._interface), self._interface.maximum
        if not self._interface.minimum <= batch <= largest:
            raise InputError(f"One run takes {self._interface.minimum} to {largest} inputs, got {batch}.")
        with self._pool.lend() as stream:
            stream.load(feeds)
            yield stream

    def integer_count(self) -> IntegerCount:
        """Convolutions and matrix products that became int8 layers, as the audit of the build found them."""
        audit = self._record.audit
        kinds = [f"{layer.op} ({'int8' if layer.integer else 'float'})" for layer in audit.layers]
        return IntegerCount(
            audit.integer, audit.total, {kind: kinds.count(kind) for kind in sorted(set(kinds))}
        )

    def close(self) -> None:
        """Release the GPU's memory; `run` must not be called afterwards."""
        self._pool.close()
        self._engine = None


def _deserialize(
    library: RunLibrary, log: EngineLog, content: bytes, record: EngineRecord
) -> "trt.ICudaEngine":
    """The engine; raises BackendUnavailable with the library's own words if it refuses."""
    log.take()
    try:
        runtime = library.Runtime(log.listener)
    except TypeError as error:  # pybind11's way to say that a constructor returned nothing
        raise BackendUnavailable(f"{library.__name__} cannot start: {log.take()} {error}") from error
    if record.version_compatible:
        # Such an engine brings the host code of the version that built it along.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        fix = "Build it again on this machine: saq-qat-runtime build FOLDER."
        raise BackendUnavailable(f"{library.__name__} refused {record.file.name}: {log.take()} {fix}")
    return engine


def _check_feeds(feeds: Mapping[str, NDArray[Any]], interface: EngineInterface) -> int:
    """The batch; raises InputError unless there is a float32 array of the right shape for every input."""
    names = [spec.name for spec in interface.inputs]
    if sorted(feeds) != sorted(names):
        raise InputError(f"The engine takes {names}, got {sorted(feeds)}.")
    batches = set()
    for spec in interface.inputs:
        array = feeds[spec.name]
        if array.dtype != np.float32 or array.ndim == 0 or array.shape[1:] != spec.shape[1:]:
            rule = f"Input {spec.name!r} must be {spec.dtype} {spec.shape}"
            raise InputError(f"{rule}, got {array.dtype} {array.shape}.")
        batches.add(len(array))
    if len(batches) != 1:
        raise InputError(f"Inputs must have one batch size, got {sorted(batches)}.")
    return batches.pop()


def _pieces(batch: int, minimum: int, maximum: int) -> list[slice]:
    """Cut a batch into runs of `maximum`, and a rest; raises InputError if the rest is below `minimum`."""
    pieces = [slice(start, min(start + maximum, batch)) for start in range(0, batch, maximum)]
    if not pieces or pieces[-1].stop - pieces[-1].start < minimum:
        rule = f"The engine runs {minimum} to {maximum} inputs at once; {batch} cannot be cut into such runs"
        raise InputError(f"{rule}. Build it with deploy.tensorrt.batch.minimum 1.")
    return pieces
