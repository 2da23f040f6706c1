"""Inputs and outputs of a TensorRT engine, read off the engine itself."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.tensorrt.library import RunLibrary

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["PROFILE", "EngineInterface", "read_interface"]

PROFILE = 0

# Our names for DataType; trt.nptype knows no bfloat16, float8, int4 or float4.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "FP4": "float4_e2m1fn",
    "E8M0": "float8_e8m0fnu",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "INT4": "int4",
    "UINT8": "uint8",
    "BOOL": "bool",
}
_FIX = "Export the bundle and build the engine again."


@dataclass(frozen=True)
class EngineInterface:
    """minimum, maximum: of the batch, as the engine's optimization profile allows it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    minimum: int
    maximum: int

    @property
    def dynamic(self) -> bool:
        """Whether the batch may vary."""
        return self.minimum != self.maximum


def read_interface(library: RunLibrary, engine: "trt.ICudaEngine") -> EngineInterface:
    """Inputs, outputs and batch of an engine with one optimization profile.

    Raises ModelError for tensors that are not float32, or of which more than the batch is dynamic.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == library.TensorIOMode.INPUT]
    outputs = [name for name in names if engine.get_tensor_mode(name) == library.TensorIOMode.OUTPUT]
    count = engine.num_optimization_profiles
    require(count <= 1, f"The engine has {count} optimization profiles, this runtime uses one. {_FIX}")
    batches = [_batch(engine, name) for name in inputs]
    require(len(set(batches)) == 1, f"The engine's inputs {inputs} have no common batch: {batches}. {_FIX}")
    minimum, maximum = batches[0]
    return EngineInterface(
        tuple(_spec(engine, name) for name in inputs),
        tuple(_spec(engine, name) for name in outputs),
        minimum,
        maximum,
    )


def _batch(engine: "trt.ICudaEngine", name: str) -> tuple[int, int]:
    """Smallest and largest batch of one input."""
    shape = tuple(engine.get_tensor_shape(name))
    if -1 not in shape:
        return shape[0], shape[0]
    smallest, _, largest = engine.get_tensor_profile_shape(name, PROFILE)
    return smallest[0], largest[0]


def _spec(engine: "trt.ICudaEngine", name: str) -> TensorSpec:
    kind = engine.get_tensor_dtype(name).name
    dtype = _DTYPES.get(kind, kind)
    require(dtype == "float32", f"{name} is {dtype}; this runtime exchanges float32 only. {_FIX}")
    batch, *rest = (int(size) for size in engine.get_tensor_shape(name))
    require(-1 not in rest, f"{name} has shape {(batch, *rest)}; only the batch may be dynamic. {_FIX}")
    return TensorSpec(name, dtype, ("N" if batch == -1 else batch, *rest))
