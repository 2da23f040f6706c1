"""Part (d): whether TensorRT-RTX builds and runs an exported network on this GPU."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.gpu.commands import COMMAND, ran
from tests.gpu.options import Options
from tests.gpu.results import machine, write_part

__all__ = ["join_pieces", "run_rtx_part"]

_SECONDS = 60


def run_rtx_part(options: Options) -> None:
    """Import the library, build ``--bundle`` and time it by the product's own commands; writes rtx.json.

    What it refuses on this machine is the result: exit code and output of each command stand there.
    """
    content: dict[str, Any] = {"machine": machine(options.device), "engine": "TensorRT-RTX"}
    environment = dict(os.environ)
    if options.rtx_wheel_parts is not None:
        site = options.work / "site"
        content["install"] = _installed(options.rtx_wheel_parts, options.work, site)
        environment["PYTHONPATH"] = os.pathsep.join([str(site.absolute()), environment.get("PYTHONPATH", "")])
    content["import"] = _ran(
        [sys.executable, "-c", "import tensorrt_rtx; print(tensorrt_rtx.__version__)"], environment
    )
    if content["import"]["code"] or options.bundle is None:
        content["skipped"] = (
            "no --bundle" if options.bundle is None else "tensorrt_rtx cannot be imported here"
        )
    else:
        bundle = str(options.bundle)
        content["build"] = _ran([*COMMAND, "build", bundle, "--flavour", "tensorrt-rtx"], environment)
        measured = ["--backend", "tensorrt-rtx", "--seconds", "5", "--json"]
        content["bench"] = _ran([*COMMAND, "bench", "--bundle", bundle, *measured], environment)
    write_part(options.output, "rtx", content, complete=True)
    for name in ("install", "import", "build", "bench"):
        if name in content:
            print(f"{name}: exit code {content[name]['code']}\n{content[name]['output'][-1500:]}", flush=True)


def _ran(command: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    return ran(command, _SECONDS, environment)


def join_pieces(folder: Path, work: Path) -> list[Path]:
    """Wheels of which ``folder`` has pieces ``NAME.whl.00``, ``NAME.whl.01``, or which lie there whole."""
    work.mkdir(parents=True, exist_ok=True)
    wheels: dict[str, list[Path]] = {}
    for piece in sorted(folder.rglob("*")):
        name = piece.name if piece.suffix == ".whl" else piece.stem
        if piece.is_file() and name.endswith(".whl"):
            wheels.setdefault(name, []).append(piece)
    for name, pieces in wheels.items():
        (work / name).write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    return [work / name for name in wheels]


def _installed(folder: Path, work: Path, site: Path) -> dict[str, Any]:
    wheels = [str(wheel) for wheel in join_pieces(folder, work / "wheels")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    return _ran([*pip, "--target", str(site), *wheels], os.environ)
