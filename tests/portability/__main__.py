"""The same codes on every CPU: networks in plain sessions on older processors (`make portability`).

usage: python -m tests.portability [FOLDER ...]

Each FOLDER is a bundle; without any, ResNet-20 and a Vision Transformer of random weights, 4 and 8 bits, are
written first. Exit code 1 if a code differs, 4 if no other processor is to be had. Older x86 processors are
this one with newer instructions hidden (``older_cpu.c``); where that cannot be done, QEMU emulates
them (package qemu-user). ARM64 needs a Python of that architecture with numpy, onnx and onnxruntime, whose
command the variable ARM64_PYTHON holds: "qemu-aarch64 -cpu neoverse-n1 -L ROOT ROOT/usr/bin/python3".

On CPUs whose float operations round otherwise (no fused multiply-add, or another architecture), softmax, GELU
and the sums of residuals may turn a code that lies at a rounding tie; one in 100,000 is allowed there.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.portability.golden_folders import write_folders
from tests.portability.older_cpu import OLDER_CPUS, build, environment, unavailable

_SCRIPT = Path(__file__).with_name("plain_codes.py")
_X86 = "qemu-x86_64"
_SECONDS = 1800
_TIES = 1e-5


@dataclass(frozen=True)
class Cpu:
    """A processor, the command of a Python on it, and the share of codes that ties may turn there."""

    name: str
    python: tuple[str, ...]
    allowed: float = 0.0
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def cpus(scratch: Path) -> Iterator[Cpu]:
    """This machine, then those that can be had; the others are named with the reason.

    Args:
        scratch: folder for what is built.
    """
    yield Cpu("this machine", (sys.executable,))
    reason = unavailable(None)
    library = None if reason else build(scratch)
    reason = reason or unavailable(library)
    if library is not None and not reason:
        for cpu, name in OLDER_CPUS.items():
            allowed = _TIES if cpu == "sse4" else 0.0
            yield Cpu(name, (sys.executable,), allowed, environment(library, cpu))
    else:
        yield from _emulated(reason)
    if arm := os.environ.get("ARM64_PYTHON"):
        yield Cpu("ARM64", tuple(shlex.split(arm)), _TIES)
    else:
        print("ARM64 is left out: ARM64_PYTHON names no Python of that architecture.")


def _emulated(reason: str) -> Iterator[Cpu]:
    emulator = shutil.which(_X86)
    if emulator is None:
        print(f"No CPU but this one can be tried: {reason}, and {_X86} is not installed (qemu-user).")
        raise SystemExit(4)
    yield Cpu("Haswell: AVX2 without VNNI", (emulator, "-cpu", "Haswell", sys.executable))
    yield Cpu("Nehalem: SSE 4.2", (emulator, "-cpu", "Nehalem", sys.executable), _TIES)


def is_wrong(cpu: Cpu, folder: Path) -> bool:
    """Whether more codes of a folder differ on a CPU than may; says how many do."""
    done = subprocess.run(
        [*cpu.python, str(_SCRIPT), str(folder)],
        capture_output=True, text=True, timeout=_SECONDS, check=False,
        env={**cpu.environment, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip  # one value a line is a page
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(f"{cpu.name}: {' '.join(cpu.python)} ended with {done.returncode}: {last}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    first = f", first in {found['first']}" if found["differ"] else ""
    print(
        f"{cpu.name:28} {folder.name:18} {found['differ']:>9,} of {found['compared']:,} codes differ{first}; "
        f"logits by at most {found['largest_logit_difference']:.3g}",
        flush=True,
    )
    return bool(found["differ"] > cpu.allowed * found["compared"])


def main() -> int:
    """Every folder on every CPU."""
    with tempfile.TemporaryDirectory() as scratch:
        available = list(cpus(Path(scratch)))
        folders = [Path(name) for name in sys.argv[1:]] or list(write_folders(Path(scratch)))
        wrong = [
            f"{folder.name} on {cpu.name}" for folder in folders for cpu in available if is_wrong(cpu, folder)
        ]
    print(f"Other codes: {', '.join(wrong)}." if wrong else "The trained codes on every CPU.")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
