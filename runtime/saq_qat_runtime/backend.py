"""What the runtime asks of an engine."""

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, Protocol
from weakref import WeakSet

from numpy.typing import NDArray

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import InputError, ModelError
from saq_qat_runtime.kernels import IntegerCount

__all__ = ["MOST_THREADS", "Backend", "check_count", "check_threads", "declared_by_model", "keep_in_children"]

MOST_THREADS = 1024
"""Of one call: more than machines have cores."""

_ENGINES: "WeakSet[object]" = WeakSet()
_HANDLERS: list[Callable[[], None]] = []


class Backend(Protocol):
    """One loaded model on one engine.

    `run` may be called by many threads at once, and never after `close`: the session checks the arrays,
    counts the calls in flight and waits for them before it closes.
    """

    @property
    def name(self) -> str:
        """The target it runs, such as "onnxruntime"."""

    @property
    def version(self) -> str:
        """Version of the engine."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """What the model takes."""

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """What the model gives."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name, in arrays that nobody else holds.

        Raises InputError if the engine refuses the arrays, RuntimeFault if it fails.
        """

    def integer_count(self) -> IntegerCount:
        """Convolutions and matrix products on integer kernels, counted in the graph the engine runs."""

    def close(self) -> None:
        """Release the engine's memory; may be called twice."""


def check_threads(threads: int | None) -> None:
    """Raise InputError for a number of threads that no engine on the CPU can use; None leaves it to them."""
    if threads is not None:
        check_count("threads", threads, most=MOST_THREADS, fix="Leave it out for the engine's choice.")


def declared_by_model(name: str, dtype: str, shape: tuple[int | Literal["N"], ...]) -> TensorSpec:
    """An input or output as an engine tells it; raises ModelError for one that no bundle has."""
    try:
        return TensorSpec(name, dtype, shape)
    except ModelError as error:
        told = ["open" if place and size == "N" else size for place, size in enumerate(shape)]
        rule = "only the batch, which comes first, may be open, and all other sizes must be positive"
        raise ModelError(f"The model has {name!r} as {told}; {rule}. Export the bundle again.") from error


def check_count(name: str, value: object, *, most: int | None = None, fix: str) -> None:
    """Raise InputError for anything but an integer from 1 to `most`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InputError(f"{name} must be an integer, got {value!r}. {fix}")
    count = int(value)
    if count < 1:
        raise InputError(f"{name} must be at least 1, got {count}. {fix}")
    if most is not None and count > most:
        raise InputError(f"{name} may be {most} at most, got {count}. {fix}")


def keep_in_children(engine: object) -> None:
    """Let a child that is forked later end without freeing `engine`, and without the exit handlers of the
    engine's library: both would wait for threads that only its parent has."""
    _ENGINES.add(engine)
    if not _HANDLERS and hasattr(os, "register_at_fork"):
        _HANDLERS.append(_keep_all)
        os.register_at_fork(after_in_child=_keep_all)


def _keep_all() -> None:
    for engine in list(_ENGINES):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    process = ctypes.CDLL(None)
    if hasattr(process, "on_exit"):  # of glibc: called with the exit status, before all that stood there
        process.on_exit(process._exit, None)
