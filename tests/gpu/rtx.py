"""Part (d): whether TensorRT-RTX builds and runs an exported network on this GPU."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.gpu.options import Options
from tests.gpu.results import machine, write_part

__all__ = ["join_pieces", "run_rtx_part"]

_SECONDS = 120
_RUNTIME = "from saq_qat_runtime.cli.main import main; main()"


def run_rtx_part(options: Options) -> None:
    """Build, verify and time ``--bundle`` by the runtime's own commands; writes rtx.json.

    What TensorRT-RTX refuses on this machine is the result; each command's output stands in it.
    """
    content: dict[str, Any] = {"machine": machine(options.device), "engine": "TensorRT-RTX"}
    environment: dict[str, str] = {}
    if options.rtx_wheel_parts is not None:
        content["installed"] = _installed(options.rtx_wheel_parts, options.work)
    content["import"] = _ran([sys.executable, "-c", "import tensorrt_rtx; print(tensorrt_rtx.__version__)"])
    if content["import"]["code"] or options.bundle is None:
        content["skipped"] = "no --bundle" if options.bundle is None else "tensorrt_rtx cannot be imported"
    else:
        runtime = [sys.executable, "-c", _RUNTIME]
        for name, arguments in {
            "build": ["build", str(options.bundle), "--flavour", "rtx"],
            "verify": ["verify", str(options.bundle), "--engine", "tensorrt-rtx"],
            "bench": ["bench", str(options.bundle), "--engine", "tensorrt-rtx", "--seconds", "5"],
        }.items():
            content[name] = _ran([*runtime, *arguments])
    write_part(options.output, "rtx", content, complete=True)
    print(json.dumps({key: value for key, value in content.items() if key != "machine"}, indent=1)[:2000])
    del environment


def _ran(command: list[str]) -> dict[str, Any]:
    """Exit code, seconds and the end of what a command said."""
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"code": None, "seconds": _SECONDS, "output": f"stopped after {_SECONDS} s"}
    said = (done.stdout + done.stderr)[-4000:]
    return {"code": done.returncode, "seconds": time.monotonic() - began, "output": said}


def join_pieces(folder: Path, work: Path) -> list[Path]:
    """Wheels of which ``folder`` has pieces ``NAME.whl.00``, ``NAME.whl.01``, or which lie there whole."""
    work.mkdir(parents=True, exist_ok=True)
    wheels: dict[str, list[Path]] = {}
    for piece in sorted(folder.iterdir()):
        name = piece.name if piece.suffix == ".whl" else piece.stem
        if name.endswith(".whl"):
            wheels.setdefault(name, []).append(piece)
    for name, pieces in wheels.items():
        (work / name).write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    return [work / name for name in wheels]


def _installed(folder: Path, work: Path) -> dict[str, Any]:
    wheels = join_pieces(folder, work / "wheels")
    site = work / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(site)]
    done = _ran([*command, *map(str, wheels)])
    sys.path.insert(0, str(site))
    return done
