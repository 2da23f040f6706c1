"""What the runtime asks of an engine."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.kernels import IntegerCount

__all__ = ["Backend", "check_threads"]


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
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}. Leave it out for the engine's choice.")
