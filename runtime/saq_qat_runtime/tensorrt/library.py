"""Which libraries run TensorRT engines, how they are imported, and what they say while they work."""

from collections import deque
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.tensorrt.engine_record import Flavour

__all__ = ["ENGINE_LIBRARIES", "EngineLibrary", "EngineLog", "engine_log", "import_library"]

_KEPT_MESSAGES = 8


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
    EngineLibrary("tensorrt", "tensorrt", "tensorrt", "pip install 'saq-qat[trt]'", False, True),
    EngineLibrary("tensorrt-lean", "tensorrt", "tensorrt_lean", "pip install tensorrt-lean", True, True),
    EngineLibrary("tensorrt-rtx", "tensorrt-rtx", "tensorrt_rtx", "pip install 'saq-qat[rtx]'", False, False),
)


class EngineLog:
    """The last errors of one library, which tells reasons to its logger alone.

    listener: what the library is given, an ILogger of its own.
    """

    def __init__(self, library: Any) -> None:
        self._messages: deque[str] = deque(maxlen=_KEPT_MESSAGES)
        self.listener = _listener(library, self._messages)

    def take(self) -> str:
        """The errors since the last call, as one sentence; several threads share the log."""
        messages = []
        while self._messages:
            messages.append(self._messages.popleft())
        return " ".join(" ".join(messages).split()).rstrip(".") + "." if messages else "It gave no reason."


@cache
def engine_log(library: Any) -> EngineLog:
    """The log of a library, the same one for ever: a library keeps the first logger it is given."""
    return EngineLog(library)


def import_library(library: EngineLibrary) -> Any:
    """The library's Python module; raises BackendUnavailable, with the way to install it."""
    try:
        return import_module(library.module)
    except (ImportError, OSError) as error:
        rule = f"Backend {library.backend!r} cannot be imported: {error}"
        raise BackendUnavailable(f"{rule}. Install it: {library.install}") from error


def _listener(library: Any, messages: deque[str]) -> Any:
    severity = library.ILogger.Severity

    class Listener(library.ILogger):  # type: ignore[misc]  # a class known at run time only
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, level: Any, message: str) -> None:
            if level in (severity.ERROR, severity.INTERNAL_ERROR):
                messages.append(message)

    return Listener()
