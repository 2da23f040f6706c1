"""Older x86 CPUs at this one's speed: commands that run with the newer instructions hidden.

usage: python -m tests.portability.older_cpu {avx512,avx2,sse4} COMMAND ...

See ``older_cpu.c``, which a C compiler (``cc``) builds into a temporary folder first. Exit code 77 where the
machine cannot do it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["OLDER_CPUS", "build", "environment", "unavailable"]

OLDER_CPUS = {
    "avx512": "AVX-512 without VNNI",
    "avx2": "AVX2 without VNNI",
    "sse4": "SSE 4.2",
}
"""What is left of the processor, by the name that ``OLDER_CPU`` takes."""

_SOURCE = Path(__file__).with_name("older_cpu.c")
_IMPOSSIBLE = 77


def build(folder: Path) -> Path:
    """The library to preload, in ``folder``; raises OSError or CalledProcessError without a C compiler."""
    library = folder / "older_cpu.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


def environment(library: Path, cpu: str) -> Mapping[str, str]:
    """Variables for a process that shall find the CPU ``cpu`` of ``OLDER_CPUS``."""
    # torch's compiler would take kernels from its cache that it made for this machine's own instructions
    kernels = {"TORCHINDUCTOR_CACHE_DIR": str(library.parent / "kernels")}
    return {**os.environ, **kernels, "LD_PRELOAD": str(library), "OLDER_CPU": cpu}


def unavailable(library: Path | None) -> str:
    """Why instructions cannot be hidden here; empty where they can."""
    if shutil.which("cc") is None:
        return "there is no C compiler (cc) to build what hides instructions"
    if library is None:
        return ""
    command = [sys.executable, "-c", ""]
    done = subprocess.run(command, env=environment(library, "avx2"), check=False, capture_output=True)
    return "" if done.returncode == 0 else "this processor or kernel cannot make CPUID fault"


def main() -> int:
    """Run the command of the command line; its exit code."""
    cpu, *command = sys.argv[1:]
    if cpu not in OLDER_CPUS or not command:
        print(f"usage: python -m tests.portability.older_cpu {{{','.join(OLDER_CPUS)}}} COMMAND ...")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        reason = unavailable(None)
        library = None if reason else build(Path(folder))
        reason = reason or unavailable(library)
        if library is None or reason:
            print(f"{OLDER_CPUS[cpu]}: not to be had; {reason}.", file=sys.stderr)
            return _IMPOSSIBLE
        return subprocess.run(command, env=environment(library, cpu), check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
