"""TensorRT's real Python bindings, imported without TensorRT: on stub libraries that have its C symbols.

To load, the bindings need a few shared libraries with nine C symbols in all; importing calls none of these.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["GOLDEN", "RELEASES", "Release", "Unavailable", "dump_module", "dump_release", "text_of"]

GOLDEN = Path(__file__).parents[2] / "golden/tensorrt_api"
_DUMP = Path(__file__).with_name("dump.py")
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


@dataclass(frozen=True)
class Release:
    """A release of bindings, the shared libraries they need, and the golden file that holds their names."""

    package: str
    version: str
    module: str
    libraries: tuple[str, ...]
    golden: str

    @property
    def major(self) -> str:
        """The number at the end of its shared libraries' names."""
        return self.version.partition(".")[0]


_ENTERPRISE = ("tensorrt_bindings", ("nvinfer", "nvinfer_plugin", "nvonnxparser"))
_LEAN = ("tensorrt_lean_bindings", ("nvinfer_lean",))
RELEASES = (
    Release("tensorrt-cu13-bindings", "10.16.1.11", *_ENTERPRISE, "10.16.json"),
    Release("tensorrt-cu13-bindings", "11.4.0.106", *_ENTERPRISE, "11.4.json"),
    Release("tensorrt-lean-cu13-bindings", "11.4.0.106", *_LEAN, "lean-11.4.json"),
)


class Unavailable(Exception):  # noqa: N818  says why the real bindings cannot be asked here
    """No compiler, or no wheel to be had."""


def dump_release(release: Release, folder: Path) -> dict[str, Any]:
    """Names of the bindings of this release, installed and imported within ``folder``.

    Raises:
        Unavailable: gcc is missing, or the wheel cannot be downloaded.
    """
    wheel, stubs = folder / "wheel", folder / "stubs"
    stubs.mkdir(parents=True)
    _compile(release, stubs)
    _install(release, wheel)
    return dump_module(release.module, PYTHONPATH=str(wheel), LD_LIBRARY_PATH=str(stubs))


def dump_module(name: str, **environment: str) -> dict[str, Any]:
    """Names of an importable module, read by a process of its own."""
    done = _run([sys.executable, str(_DUMP), name], environment)
    if done.returncode:
        raise RuntimeError(f"{name} cannot be imported:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def text_of(names: dict[str, Any]) -> str:
    """As it stands in a golden file."""
    return json.dumps(names, indent=1, sort_keys=True) + "\n"


def _compile(release: Release, folder: Path) -> None:
    source = folder / "stub.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    for library in release.libraries:
        target = folder / f"lib{library}.so.{release.major}"
        try:
            done = _run(["gcc", "-shared", "-fPIC", "-o", str(target), str(source)])
        except FileNotFoundError as error:
            raise Unavailable("needs gcc to compile the stub libraries") from error
        if done.returncode:
            raise Unavailable(f"gcc cannot compile the stub libraries: {done.stderr}")


def _install(release: Release, folder: Path) -> None:
    package = f"{release.package}=={release.version}"
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    done = _run([*pip, "--no-deps", "--only-binary", ":all:", "--target", str(folder), package])
    if done.returncode:
        raise Unavailable(f"pip cannot install {package}: {done.stderr.strip()[-300:]}")


def _run(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=variables)
