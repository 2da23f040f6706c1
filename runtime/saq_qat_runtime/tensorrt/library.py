"""Which libraries run TensorRT engines, how they are imported, and what they say while they work."""

from collections import deque
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.tensorrt.engine_record import Flavour

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["ENGINE_LIBRARIES", "EngineLibrary", "EngineLog", "RunLibrary", "engine_log", "import_library"]

_KEPT_MESSAGES = 8


class RunLibrary(Protocol):
    """What running an engine takes of a library's module, the same in all of them and in every version."""

    __name__: str
    __version__: str
    ExecutionContextAllocationStrategy: "type[trt.ExecutionContextAllocationStrategy]"
    ILogger: "type[trt.ILogger]"
    Runtime: "type[trt.Runtime]"
    TensorIOMode: "type[trt.TensorIOMode]"

    def __hash__(self) -> int: ...


if TYPE_CHECKING:
    _tensorrt_has_all_of_it: RunLibrary = trt


@dataclass(frozen=True)
class EngineLibrary:
    """One library that runs engines of a flavour; `backend` is the name a session calls it by.

    only_version_compatible: the lean runtime has no engine format of its own
    (docs.nvidia.com/deeplearning/tensorrt/11.4.0/inference-library/engine-compatibility.html).
    captures_dynamic_shapes: CUDA graphs of engines with a dynamic batch are worth capturing. TensorRT-RTX
    compiles kernels for each shape while it runs; a graph would keep the slow ones it began with
    (docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-with-cuda-graphs.html).
    """

    backend: str
    flavour: Flavour
    module: str
    install: str
    only_version_compatible: bool
    captures_dynamic_shapes: bool


ENGINE_LIBRARIES = (
    EngineLibrary("tensorrt", "tensorrt", "tensorrt", "pip install 'saq-qat-runtime[trt]'", False, True),
    EngineLibrary("tensorrt-lean", "tensorrt", "tensorrt_lean", "pip install tensorrt-lean", True, True),
    EngineLibrary(
        "tensorrt-rtx", "tensorrt-rtx", "tensorrt_rtx", "pip install 'saq-qat-runtime[rtx]'", False, False
    ),
)


class EngineLog:
    """The last errors of one library, which tells reasons to its logger alone.

    listener: what the library is given, an ILogger of its own.
    """

    def __init__(self, library: RunLibrary) -> None:
        self._messages: deque[str] = deque(maxlen=_KEPT_MESSAGES)
        self.listener = _listener(library, self._messages)

    def take(self) -> str:
        """The errors since the last call, as one sentence; several threads share the log."""
        messages = []
        while self._messages:
            messages.append(self._messages.popleft())
        return " ".join(" ".join(messages).split()).rstrip(".") + "." if messages else "It gave no reason."


@cache
def engine_log(library: RunLibrary) -> EngineLog:
    """The log of a library, the same one for ever: a library keeps the first logger it is given."""
    return EngineLog(library)


def import_library(library: EngineLibrary) -> RunLibrary:
    """The library's Python module; raises BackendUnavailable, with the way to install it."""
    try:
        module: RunLibrary = import_module(library.module)
        return module
    except (ImportError, OSError) as error:
        rule = f"Backend {library.backend!r} cannot be imported: {error}"
        raise BackendUnavailable(f"{rule}. Install it: {library.install}") from error


def _listener(library: RunLibrary, messages: deque[str]) -> "trt.ILogger":
    base = library.ILogger
    failures = (base.Severity.ERROR, base.Severity.INTERNAL_ERROR)

    class Listener(base):  # type: ignore[misc, valid-type]  # a class known at run time only
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: "trt.ILogger.Severity", msg: str) -> None:
            if severity in failures:
                messages.append(msg)

    return Listener()
