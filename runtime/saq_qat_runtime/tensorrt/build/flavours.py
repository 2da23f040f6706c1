"""Which TensorRT can build an engine on this machine, which can run one, and what to install for more."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.tensorrt.build.exchange import LIBRARY_MODULES
from saq_qat_runtime.tensorrt.build.options import WantedFlavour
from saq_qat_runtime.tensorrt.driver import DriverStatus, driver_status
from saq_qat_runtime.tensorrt.engine_record import Flavour

__all__ = [
    "FLAVOUR_NAMES",
    "INSTALL_LINES",
    "FlavourState",
    "LibraryStatus",
    "available_flavours",
    "choose_flavour",
    "library_status",
]

FLAVOUR_NAMES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
INSTALL_LINES: dict[Flavour, str] = {
    "tensorrt": "pip install 'saq-qat-runtime[trt]'",
    "tensorrt-rtx": "pip install 'saq-qat-runtime[rtx]'",
}
_IMPORT_SECONDS = 120
_NEITHER = (
    "No TensorRT library can build an engine here.\n{reasons}\n"
    f"On a machine with an NVIDIA GPU: {INSTALL_LINES['tensorrt']}. "
    f"On any machine: {INSTALL_LINES['tensorrt-rtx']}."
)


@dataclass(frozen=True)
class LibraryStatus:
    """A TensorRT library: its version, None where it cannot be imported; reason: why not, else empty."""

    version: str | None
    reason: str


@dataclass(frozen=True)
class FlavourState:
    """What one flavour can do on this machine.

    version: of its library, None where it cannot be imported. builds, runs: whether engines can be built, and
    run, here. reason: what stands in the way of either, empty if nothing does. install: the command that
    installs its library.
    """

    flavour: Flavour
    version: str | None
    builds: bool
    runs: bool
    reason: str

    @property
    def install(self) -> str:
        """The command that installs the library."""
        return INSTALL_LINES[self.flavour]


def library_status(flavour: Flavour) -> LibraryStatus:
    """Import the library in a process of its own, so that a crash is an answer too; about 0.1 s."""
    module = LIBRARY_MODULES[flavour]
    if find_spec(module) is None:
        return LibraryStatus(None, f"the package {module} is not installed")
    program = f"import {module} as library; print(library.__version__)"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", program],
            capture_output=True,
            text=True,
            timeout=_IMPORT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return LibraryStatus(None, f"importing {module} took more than {_IMPORT_SECONDS} s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        return LibraryStatus(None, f"{module} does not import: {last}")
    return LibraryStatus(done.stdout.strip(), "")


def available_flavours(
    driver: DriverStatus | None = None, library: Callable[[Flavour], LibraryStatus] = library_status
) -> tuple[FlavourState, ...]:
    """Both flavours, Enterprise first: it chooses and times its kernels on the GPU that will run them.

    Args:
        driver: the CUDA driver; asked if not given.
        library: asks for a library.
    """
    found = driver_status() if driver is None else driver
    return tuple(_state(flavour, library(flavour), found) for flavour in FLAVOUR_NAMES)


def _state(flavour: Flavour, library: LibraryStatus, driver: DriverStatus) -> FlavourState:
    if library.version is None:
        return FlavourState(flavour, None, False, False, library.reason)
    builds = driver.usable or flavour == "tensorrt-rtx"
    return FlavourState(flavour, library.version, builds, driver.usable, driver.reason)


def choose_flavour(wanted: WantedFlavour, states: tuple[FlavourState, ...] | None = None) -> Flavour:
    """The flavour that will build: the one asked for, or for auto the first that can.

    Args:
        states: of both flavours; found out if not given.

    Raises:
        BackendUnavailable: it cannot build here, and how to mend that.
    """
    known = available_flavours() if states is None else states
    candidates = [state for state in known if wanted in ("auto", state.flavour)]
    for state in candidates:
        if state.builds:
            return state.flavour
    reasons = "\n".join(f"{FLAVOUR_NAMES[s.flavour]}: {s.reason}" for s in candidates)
    told = _NEITHER.format(reasons=reasons) if wanted == "auto" else _alone(candidates[0], known)
    raise BackendUnavailable(told)


def _alone(state: FlavourState, known: tuple[FlavourState, ...]) -> str:
    """Why the flavour that was asked for cannot build, and what can."""
    fix = f"Install it: {state.install}" if state.version is None else "Build on a machine with a GPU"
    others = [f"--flavour {other.flavour}" for other in known if other.builds]
    instead = f", or use what can build here: {others[0]}." if others else "."
    return f"{FLAVOUR_NAMES[state.flavour]} cannot build here: {state.reason}. {fix}{instead}"
