"""ONNX Runtime on the CPU."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from numpy.typing import NDArray

from saq_qat_runtime.backend import check_threads, declared_by_model, keep_in_children
from saq_qat_runtime.bundle.onnx_file import summarize
from saq_qat_runtime.bundle.onnx_limits import refuse_unsafe
from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import (
    BackendUnavailable,
    InputError,
    ModelError,
    ResultError,
    RuntimeFault,
    one_line,
)
from saq_qat_runtime.kernels import IntegerCount, count_kernels

__all__ = ["EXACT_PAIRS", "OnnxRuntimeBackend"]

EXACT_PAIRS = "session.x64quantprecision"
"""Option of ONNX Runtime: int8 weights become uint8 on x86 CPUs whose kernels would saturate."""

_PROVIDER = "CPUExecutionProvider"
_ONLY_FATAL = 4  # log severity: what matters is raised, not printed
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class OnnxRuntimeBackend:
    """One model on ONNX Runtime's CPU provider; implements Backend.

    content: a serialized ONNX model with its weights inside.
    threads: of one run; None leaves it to the engine, which takes the physical cores.
    any_operators: the graph is one's own, no bundle's: see `refuse_unsafe`.
    exact_pairs: ask for kernels that add pairs of products without saturating, for a model over the pair
    bound; slower on x86 CPUs without VNNI, and nothing else anywhere.
    Raises ModelError for a model it cannot or will not load, BackendUnavailable where onnxruntime is missing.
    """

    name = "onnxruntime"

    def __init__(
        self,
        content: bytes,
        *,
        threads: int | None = None,
        exact_pairs: bool = False,
        any_operators: bool = False,
    ) -> None:
        check_threads(threads)
        self._onnxruntime = _import_onnxruntime()
        refuse_unsafe(content, any_operators=any_operators)
        self._content = content
        self._threads = threads
        self._exact_pairs = exact_pairs
        self._session = self._load(self._options())
        keep_in_children(self._session)

    @property
    def version(self) -> str:
        """Version of the installed onnxruntime."""
        return str(self._onnxruntime.__version__)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the model takes; a first dimension without a fixed size is the batch."""
        return tuple(_spec(argument) for argument in self._session.get_inputs())

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the model gives."""
        return tuple(_spec(argument) for argument in self._session.get_outputs())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name; see Backend."""
        state = self._onnxruntime.capi.onnxruntime_pybind11_state
        names = [argument.name for argument in self._session.get_outputs()]
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except (state.InvalidArgument, ValueError) as error:
            raise InputError(f"ONNX Runtime refused the input: {one_line(error)}") from error
        except _failures(self._onnxruntime) as error:
            raise RuntimeFault(f"ONNX Runtime failed: {one_line(error)} Load the session again.") from error

    def integer_count(self) -> IntegerCount:
        """Count integer kernels in the graph that ONNX Runtime makes of the model.

        The model is loaded once more, at the default optimization level, and the optimized graph written to a
        temporary file that is read and removed. Raises ResultError if the disk has no room for it.
        """
        unwritten: tuple[type[Exception], ...] = (ModelError, OSError, *_failures(self._onnxruntime))
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "optimized.onnx"
                options = self._options()
                options.optimized_model_filepath = str(path)
                self._start(options)
                return count_kernels(summarize(path.read_bytes()).operators)
        except unwritten as error:
            # It was loaded before, so what fails is the writing, whatever the engine calls it.
            raise ResultError(_unwritten(len(self._content), error)) from error

    def close(self) -> None:
        """Release the engine's memory; `run` must not be called afterwards."""
        self._session = None
        self._content = b""

    def _options(self) -> Any:
        options = self._onnxruntime.SessionOptions()
        options.log_severity_level = _ONLY_FATAL
        options.inter_op_num_threads = 1
        # Between runs the engine's idle threads would go on spinning, on cores that other sessions need.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._exact_pairs:
            options.add_session_config_entry(EXACT_PAIRS, "1")
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        return options

    def _load(self, options: Any) -> Any:
        try:
            return self._start(options)
        except _failures(self._onnxruntime) as error:
            rule = f"ONNX Runtime {self.version} cannot load the model: {one_line(error)}"
            raise ModelError(f"{rule} Export the bundle again, or update onnxruntime.") from error

    def _start(self, options: Any) -> Any:
        return self._onnxruntime.InferenceSession(self._content, options, providers=[_PROVIDER])


def _unwritten(size: int, error: Exception) -> str:
    known = error.strerror if isinstance(error, OSError) else None
    return (
        f"The graph that ONNX Runtime makes of the model, some {size:,} bytes, cannot be written to a "
        f"temporary folder: {known or 'the file broke off'}. Free space there, raise the limit on the size "
        "of files, or name another folder in the environment variable TMPDIR."
    )


def _import_onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        hint = "Install it: pip install onnxruntime"
        raise BackendUnavailable(f"Backend 'onnxruntime' cannot be imported: {error}. {hint}") from error
    if _PROVIDER not in onnxruntime.get_available_providers():
        raise BackendUnavailable(
            f"This onnxruntime has no {_PROVIDER}. Install another build: pip install onnxruntime"
        )
    return onnxruntime  # type: ignore[no-any-return]  # it has no types


def _failures(onnxruntime: ModuleType) -> tuple[type[Exception], ...]:
    """What a call into the engine may raise; its own exception classes share no base below Exception."""
    members = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    own = (member for member in members if isinstance(member, type) and issubclass(member, Exception))
    return (*own, MemoryError, RuntimeError, ValueError)


def _spec(argument: Any) -> TensorSpec:
    shape: tuple[int | Literal["N"], ...]
    shape = tuple(size if isinstance(size, int) else "N" for size in argument.shape)
    return declared_by_model(argument.name, _DTYPES.get(argument.type, argument.type), shape)
