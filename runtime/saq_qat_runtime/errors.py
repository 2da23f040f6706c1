"""Errors of the runtime, by who can mend them.

    SessionError                1   a step failed
    ├── InputError              2   the caller: an array, image or argument breaks a rule (HTTP 400)
    ├── DataError               3   the images: missing, or no images at all
    ├── ModelError              3   the artifact: a bundle is missing, damaged, unproved or of another version
    │   └── VersionError        3   a whole file whose schema_version this package does not read
    ├── DepartureError          1   the engine: its answers are not those of the network that was trained
    ├── ResultError             1   the measurement: a number is not finite, or it cannot be written
    ├── BackendUnavailable      4   the machine: an engine or library that was asked for is missing
    ├── EngineError             1   the builder: TensorRT could not build an engine of a graph
    ├── RuntimeFault            1   the engine: a run failed; the session refuses further calls (HTTP 503)
    │   └── CudaError           1   the GPU: a CUDA call failed; most such errors stay until the process ends
    └── ClosedError             1   the program: a session was used after `close()` or across a fork

The number is the exit code of a command that meets the error.

A message states the rule, what was found, where, and how to mend it.
"""

__all__ = [
    "BackendUnavailable",
    "ClosedError",
    "CudaError",
    "DataError",
    "DepartureError",
    "EngineError",
    "InputError",
    "ModelError",
    "ResultError",
    "RuntimeFault",
    "SessionError",
    "VersionError",
    "one_line",
]


class SessionError(Exception):
    """Base of every error the runtime raises on purpose."""

    exit_code = 1


class InputError(SessionError):
    """An array, image or argument breaks a rule; nothing was computed and the session stays usable."""

    exit_code = 2


class DataError(SessionError):
    """Images that a bundle was exported with are not where they should be, or cannot be read."""

    exit_code = 3


class ModelError(SessionError):
    """A bundle is missing, damaged, unproved or of another version."""

    exit_code = 3


class VersionError(ModelError):
    """A whole file of another schema_version: make it again, or use the package that wrote it."""


class DepartureError(SessionError):
    """An engine departs further from the network that was trained than the bundle's thresholds allow."""


class ResultError(SessionError):
    """What was found or built cannot become a file: a number in it is not finite, the disk refuses it, or a
    file of the user's lies in its place."""


class BackendUnavailable(SessionError):  # noqa: N818  "unavailable" already says that it is an error
    """The engine or library that was asked for cannot run here; nothing else silently takes its place."""

    exit_code = 4


class EngineError(SessionError):
    """TensorRT refused a graph, or failed to build an engine of it."""


class RuntimeFault(SessionError):  # noqa: N818  a fault is the engine's, and stays until the session is loaded again
    """The engine failed in the middle of a run, or computes other numbers than it must."""


class CudaError(RuntimeFault):
    """A CUDA call failed. Errors of kernels are sticky: every later call of the process fails alike.

    call: the function, cudaMalloc for instance. name: of the error (cudaError_t in driver_types.h).
    """

    def __init__(self, call: str, name: str) -> None:
        self.call = call
        self.name = name
        fix = "Free GPU memory." if self.out_of_memory else "Restart the process that uses the GPU."
        super().__init__(f"CUDA call {call} failed: {name}. {fix}")

    @property
    def out_of_memory(self) -> bool:
        """Whether memory was short, which harms nothing else."""
        return self.name == "cudaErrorMemoryAllocation"

    @property
    def refuses_capture(self) -> bool:
        """Whether only the recording of a graph failed."""
        return self.name.startswith("cudaErrorStreamCapture") or self.name == "cudaErrorCapturedEvent"


class ClosedError(SessionError):
    """The session was closed, or belongs to the process this one was forked from."""


def one_line(error: Exception) -> str:
    """An engine's message as one sentence."""
    return " ".join(str(error).split()).rstrip(".") + "."
