"""A surface: a door through which data of others comes in, and how a case that is tried on it is judged."""

import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

__all__ = ["SURFACES", "Case", "Surface", "confine", "limit_time", "surface_named", "try_case"]

SURFACES = {
    "recipes": 1,
    "manifests": 1,
    "golden": 1,
    "models": 2,
    "openvino_models": 2,
    "checkpoints": 1,
    "pretrained": 1,
    "images": 1,
    "preprocessing": 1,
    "http": 1,
    "lint": 1,
    "networks": 3,
}
"""Each is a file of this folder, with its share of the time of a long run. They are imported one at a time:
some need torch, some must be small."""

Case = Callable[[Random], str]
"""Makes one input of a generator, tries it, and says in a word or two what became of it. Whatever is wrong is
raised, an error of the product that no user should see included."""

_STATUS = Path("/proc/self/status")
_PEAK_AGAIN = "5"
"""Written to clear_refs, lets the kernel count the largest resident memory from now on (proc(5))."""


@dataclass(frozen=True)
class Surface:
    """What is tried, and within which bounds.

    opened: gives the case in an empty folder, where it leaves its last input. seconds: of processor time that
    one case may take. mebibytes: of resident memory that it may take beside what its process has already.
    """

    name: str
    opened: Callable[[Path], AbstractContextManager[Case]]
    seconds: float = 10.0
    mebibytes: int = 512


def surface_named(name: str) -> Surface:
    """The surface of a file of this folder."""
    surface: Surface = import_module(f"tests.fuzz.{name}").SURFACE
    return surface


def confine(mebibytes: int) -> None:
    """Let this process have so much address space beside what it has."""
    most = (_memory("VmSize") + mebibytes) << 20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def limit_time(seconds: float) -> None:
    """Let the kernel end this process, with SIGXCPU, a second or two after it has computed for so long."""
    most = int(time.process_time() + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def try_case(surface: Surface, case: Case, seed: int) -> str:
    """What became of the case of a seed; raises whatever is wrong with it, AssertionError beyond a bound."""
    Path("/proc/self/clear_refs").write_text(_PEAK_AGAIN)
    began, before = time.process_time(), _memory("VmRSS")
    outcome = case(Random(f"{surface.name} {seed}"))
    taken, grown = time.process_time() - began, _memory("VmHWM") - before
    assert taken <= surface.seconds, f"took {taken:.1f} s of processor time, {surface.seconds} are allowed"
    assert grown <= surface.mebibytes, f"took {grown} MiB of memory, {surface.mebibytes} are allowed"
    return outcome


def _memory(key: str) -> int:
    """MiB of this process that the kernel knows by `key`."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[key].split()[0]) >> 10
