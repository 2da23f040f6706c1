"""OpenVINO on the CPU."""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.backend import check_threads, declared_by_model, keep_in_children
from saq_qat_runtime.bundle.onnx_file import parse_graph
from saq_qat_runtime.bundle.onnx_limits import refuse_unsafe
from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import BackendUnavailable, InputError, ModelError, RuntimeFault, one_line
from saq_qat_runtime.kernels import FLOAT_KERNELS, IntegerCount

__all__ = ["OpenVinoBackend", "compile_model", "count_integer"]

_DEVICE = "CPU"
_PRODUCTS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
_INTEGER = frozenset({"i8", "u8"})
_FUSED = "inside fused float kernels"
_SETTINGS: dict[str, Any] = {
    "PERFORMANCE_HINT": "LATENCY",
    # what is float stays float32, and no float becomes int8 on the way into a layer of int8 weights
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    # sessions of one process would be pinned to the same cores
    "ENABLE_CPU_PINNING": False,
}


class OpenVinoBackend:
    """One model on OpenVINO's CPU plugin; implements Backend.

    content: a serialized ONNX model with its weights inside.
    threads: of one run; None leaves it to the engine, which takes the physical cores.
    any_operators: the graph is one's own, no bundle's: see `refuse_unsafe`.
    Raises ModelError for a model it cannot or will not load, BackendUnavailable where openvino is missing.
    """

    name = "openvino"

    def __init__(self, content: bytes, *, threads: int | None = None, any_operators: bool = False) -> None:
        check_threads(threads)
        self._openvino = _import_openvino()
        refuse_unsafe(content, any_operators=any_operators)
        self._products = sum(node.op_type in FLOAT_KERNELS for node in parse_graph(content).nodes)
        self._compiled: Any = self._compile(content, threads)
        keep_in_children(self._compiled)
        self._idle: list[Any] = []

    @property
    def version(self) -> str:
        """Version of the installed openvino."""
        return str(self._openvino.__version__).split("-")[0]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the model takes; a first dimension without a fixed size is the batch."""
        return tuple(map(_spec, self._compiled.inputs))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the model gives."""
        return tuple(map(_spec, self._compiled.outputs))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name; see Backend. Each call in flight has a request, kept for later ones."""
        _check(feeds, self.inputs)
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            results = request.infer({name: np.ascontiguousarray(array) for name, array in feeds.items()})
            found = {port.any_name: np.array(results[port]) for port in self._compiled.outputs}
        except (MemoryError, RuntimeError, TypeError, ValueError) as error:
            raise RuntimeFault(f"OpenVINO failed: {one_line(error)} Load the session again.") from error
        self._idle.append(request)
        return found

    def integer_count(self) -> IntegerCount:
        """Count integer kernels in the graph that OpenVINO runs.

        What it fuses with other operations and shows no more counts as float.
        """
        return count_integer(self._compiled, self._products)

    def kernels(self) -> tuple[tuple[str, ...], ...]:
        """Of each kernel that OpenVINO runs, names of the model's nodes that it computes, in their order."""
        facts = (node.get_rt_info() for node in self._compiled.get_runtime_model().get_ordered_ops())
        named = (str(f["originalLayersNames"].astype(str)) for f in facts if "originalLayersNames" in f)
        return tuple(tuple(names.split(",")) for names in named)

    def close(self) -> None:
        """Release the engine's memory; `run` must not be called afterwards."""
        self._idle.clear()
        self._compiled = None

    def _compile(self, content: bytes, threads: int | None) -> Any:
        try:
            return compile_model(_core(self._openvino).read_model(content), threads=threads)
        except (MemoryError, RuntimeError, TypeError, ValueError) as error:
            rule = f"OpenVINO {self.version} cannot load the model: {one_line(error)}"
            raise ModelError(f"{rule} Export the bundle again, or update openvino.") from error


def compile_model(model: Any, *, threads: int | None) -> Any:
    """An ``openvino.Model`` compiled for the CPU as the backend compiles a bundle's.

    Raises what OpenVINO raises; BackendUnavailable where it is missing.
    """
    settings = _SETTINGS if threads is None else {**_SETTINGS, "INFERENCE_NUM_THREADS": threads}
    return _core(_import_openvino()).compile_model(model, _DEVICE, settings)


def count_integer(compiled: Any, products: int = 0) -> IntegerCount:
    """Count integer kernels in the graph that a compiled model runs.

    products: how many the model was written with; those that no kernel shows count as float.
    """
    kinds: Counter[str] = Counter()
    integer = 0
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        kind = str(facts["layerType"].astype(str)) if "layerType" in facts else ""
        if kind in _PRODUCTS:
            kinds[kind] += 1
            integer += facts["runtimePrecision"].astype(str) in _INTEGER
    hidden = max(products - kinds.total(), 0)
    by_op = dict(sorted(kinds.items())) | ({_FUSED: hidden} if hidden else {})
    return IntegerCount(integer, kinds.total() + hidden, by_op)


@cache
def _core(openvino: ModuleType) -> Any:
    """One for the process, never destroyed: with the last one goes the stack that OpenVINO 2026.4 gave signal
    handlers, and the next signal that Python handles would end the process with a segmentation fault."""
    core = openvino.Core()
    keep_in_children(core)
    return core


def _import_openvino() -> ModuleType:
    try:
        import openvino
    except ImportError as error:
        hint = "Install it: pip install openvino"
        raise BackendUnavailable(f"Backend 'openvino' cannot be imported: {error}. {hint}") from error
    return openvino  # type: ignore[no-any-return]  # it is not typed


def _check(feeds: Mapping[str, NDArray[Any]], inputs: tuple[TensorSpec, ...]) -> None:
    """Raise InputError for other arrays than the model takes; the engine would make do with some of them."""
    given = {name: (str(array.dtype), array.shape) for name, array in feeds.items()}
    for spec in inputs:
        dtype, shape = given.pop(spec.name, ("no array", ()))
        fits = len(shape) == len(spec.shape) and all(
            own in ("N", size) for own, size in zip(spec.shape, shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            takes = f"{spec.dtype} {spec.shape} as {spec.name!r}"
            raise InputError(f"OpenVINO refused the input: the model takes {takes}, got {dtype} {shape}.")
    if given:
        raise InputError(f"OpenVINO refused the input: the model has no input {sorted(given)[0]!r}.")


def _spec(port: Any) -> TensorSpec:
    shape: tuple[int | Literal["N"], ...]
    shape = tuple(size.get_length() if size.is_static else "N" for size in port.get_partial_shape())
    return declared_by_model(port.any_name, str(np.dtype(port.get_element_type().to_dtype())), shape)
