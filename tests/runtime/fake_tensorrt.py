"""A TensorRT library with one kind of engine, a linear map, on a FakeDevice."""

from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.files import sha256
from saq_qat_runtime.bundle.records import FileRecord, TensorSpec
from saq_qat_runtime.tensorrt.device import Address, host_array
from saq_qat_runtime.tensorrt.engine_record import Audit, EngineRecord, LayerVerdict, Profile
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.networks import LABELS, SIDE

__all__ = ["PLAN", "DataType", "FakeTensorRt", "Severity", "expected", "record_of"]

PLAN = b"a serialized engine"
IMAGE = (3, SIDE, SIDE)
_FLOATS = 3 * SIDE * SIDE
_MOST_LABELS = 16
_WEIGHTS = np.random.default_rng(5).normal(size=(_FLOATS, _MOST_LABELS)).astype(np.float32)
_SCRATCH_BYTES = 1024

DataType = Enum("DataType", ["FLOAT", "HALF", "BF16", "INT8", "FP4"])
TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
Strategy = Enum("Strategy", ["STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"])
Severity = Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING"])


def expected(images: NDArray[np.float32], labels: int = LABELS) -> NDArray[np.float32]:
    """What the engine computes."""
    return images.reshape(len(images), -1) @ _WEIGHTS[:, :labels]


def record_of(content: bytes = PLAN, *, source: FileRecord | None = None, **changes: Any) -> EngineRecord:
    """The record of an engine as an H100 would build it."""
    layers = (
        LayerVerdict("conv1", "Conv", True, True, "conv1 + relu", ""),
        LayerVerdict("conv2", "Conv", True, False, "conv2", "its scale has a dimension"),
        LayerVerdict("head", "Gemm", True, True, "head", ""),
    )
    fields: dict[str, Any] = {
        "schema_version": 1,
        "created_by": "saq-qat 0.1.0",
        "file": FileRecord("model.plan", sha256(content), len(content)),
        "source": source or FileRecord("model.tensorrt.onnx", sha256(b"onnx"), 4),
        "flavour": "tensorrt",
        "version": "10.16.1.11",
        "gpu": "NVIDIA H100 80GB HBM3",
        "compute_capabilities": ("9.0",),
        "cuda": "13.0",
        "driver": "580.65.06",
        "precision": "float32",
        "hardware_compatibility": "none",
        "version_compatible": False,
        "optimization_level": 3,
        "workspace_mib": 1024,
        "inputs": (TensorSpec("image", "float32", ("N", *IMAGE)),),
        "outputs": (TensorSpec("logits", "float32", ("N", LABELS)),),
        "profiles": (Profile("image", (1, *IMAGE), (4, *IMAGE), (8, *IMAGE)),),
        "audit": Audit("engine inspector", layers),
        "build_seconds": 1.5,
    }
    return EngineRecord(**{**fields, **changes})


class FakeTensorRt:
    """What `import tensorrt` gives; its attributes say what the engine is like and what goes wrong.

    batch: smallest and largest of the engine's profile. capturable: a graph can be made of it. executes: it
    can be enqueued. kernel_error: what its kernels fail with. nanoseconds, enqueue_nanoseconds: what
    a run takes on the GPU, and on the host.
    """

    __name__ = "tensorrt"
    DataType = DataType
    TensorIOMode = TensorIOMode
    ExecutionContextAllocationStrategy = Strategy
    ILogger = type("ILogger", (), {"Severity": Severity})

    def __init__(self, device: FakeDevice) -> None:
        self.__version__ = "10.16.1.11"
        self.device = device
        self.batch = (1, 8)
        self.labels = LABELS
        self.dtype = DataType.FLOAT
        self.image_shape: tuple[int, ...] = (-1, *IMAGE)
        self.profiles = 1
        self.deserializes = True
        self.capturable = True
        self.executes = True
        self.kernel_error: str | None = None
        self.nanoseconds = 100_000
        self.enqueue_nanoseconds = 40_000
        self.runtimes: list[FakeRuntime] = []
        self.contexts: list[FakeContext] = []
        self.Runtime: Callable[[Any], Any] = self._runtime

    def _runtime(self, logger: Any) -> "FakeRuntime":
        runtime = FakeRuntime(self, logger)
        self.runtimes.append(runtime)
        return runtime


class FakeRuntime:
    def __init__(self, library: FakeTensorRt, logger: Any) -> None:
        self.engine_host_code_allowed = False
        self.content: bytes | None = None
        self._library = library
        self.say: Callable[[str], None] = lambda message: logger.log(Severity.ERROR, message)
        logger.log(Severity.WARNING, "nothing of interest")

    def deserialize_cuda_engine(self, content: bytes) -> "FakeEngine | None":
        self.content = content
        if not self._library.deserializes:
            self.say("IRuntime::deserializeCudaEngine: Error Code 6:\n  magic tag does not match")
            return None
        return FakeEngine(self._library, self.say)


class FakeEngine:
    num_io_tensors = 2
    device_memory_size_v2 = _SCRATCH_BYTES

    def __init__(self, library: FakeTensorRt, say: Callable[[str], None]) -> None:
        self.library = library
        self.say = say
        self.num_optimization_profiles = library.profiles

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self.library.dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self.library.image_shape
        return shape if name == "image" else (shape[0], self.library.labels)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("image", 0), "outputs have no profile"
        smallest, largest = self.library.batch
        return [(smallest, *IMAGE), (largest, *IMAGE), (largest, *IMAGE)]

    def create_execution_context(self, strategy: Strategy) -> "FakeContext":
        assert strategy is Strategy.USER_MANAGED
        context = FakeContext(self)
        self.library.contexts.append(context)
        return context


class FakeContext:
    """Like the real one: a new shape takes effect at the next plain run, and spoils older graphs."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._library = engine.library
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] = (0, 0)
        self._profile = None if engine.library.contexts else 0
        self._shape: tuple[int, ...] | None = None
        self._generation = 0
        self._settled = -1

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = profile
        self._shape = None
        self._library.device.enqueue(stream, lambda: None, 0)
        return profile < self._library.profiles

    def set_device_memory(self, address: int, size: int) -> None:
        self._library.device.check_range(address, size, "device")
        self._scratch = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "image"
        smallest, largest = self._library.batch
        if self._profile is None:
            self._engine.say("no optimization profile")
            return False
        if not smallest <= shape[0] <= largest or shape[1:] != IMAGE:
            self._engine.say(f"{shape} is outside of the profile")
            return False
        self._shape = shape
        self._generation += 1
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self._shape is not None else ["image"]

    def execute_async_v3(self, stream: int) -> bool:
        device = self._library.device
        if not self._library.executes or self._shape is None or self._scratch[1] < _SCRATCH_BYTES:
            self._engine.say("Error Code 1: enqueueV3 failed")
            return False
        if device.is_capturing(stream):
            if self._settled != self._generation or not self._library.capturable:
                self._engine.say("cannot be captured")
                return False
        else:
            self._settled = self._generation
        device.host_now += self._library.enqueue_nanoseconds
        batch, generation = self._shape[0], self._generation
        device.enqueue(stream, lambda: self._compute(batch, generation), self._library.nanoseconds)
        return True

    def _compute(self, batch: int, generation: int) -> None:
        if self._library.kernel_error is not None:
            self._library.device.sticky = self._library.kernel_error
            return
        image, logits = (Address(self._addresses[name]) for name in ("image", "logits"))
        self._library.device.check_range(image, batch * _FLOATS * 4, "device")
        labels = self._library.labels
        values = expected(host_array(image, (batch, *IMAGE)), labels)
        stale = generation != self._generation
        host_array(logits, (batch, labels))[:] = np.nan if stale else values
