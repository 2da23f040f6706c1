"""Type stubs of TensorRT's Python bindings, made from the real bindings by mypy's stubgen.

Importing the bindings takes no GPU and no TensorRT, only libraries that have nine C symbols, which are
compiled here and never called. ``python -m tests.contract.tensorrt_stubs`` writes them again.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GOLDEN", "RELEASES", "Release", "Unavailable", "make_stub", "write_stub"]

GOLDEN = Path(__file__).parents[1] / "golden/tensorrt"
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
_CORRECTIONS = (
    # A variable that would hide the type in every annotation of the file; our code does not use it.
    (r"^bool: DataType\n", ""),
    # add_scale_nd: no parameter without a default may follow those that have one.
    (r"(?<= = \.\.\., channel_axis: typing\.SupportsInt)(?=\))", " = ..."),
    # Its docstring speaks in words of C++.
    (
        r"(?<=def get_error\()self, \*args, \*\*kwargs\): ",
        "self, index: typing.SupportsInt) -> ParserError: ",
    ),
    # Of the Python package around the bindings.
    (r"\A", "__version__: str\n"),
    # What docstrings do not tell: sequences become Dims, Dims iterate, memory is a buffer, failure is None.
    (r"(?<=\w: )Dims(?=[,)])", "Dims | collections.abc.Sequence[int]"),
    (
        r"(def (?:build_serialized_network|create_execution_context|deserialize_cuda_engine)\(.*)(?=: \.)",
        r"\1 | None",
    ),
    (r"^class Dims:\n", r"\g<0>    def __iter__(self) -> collections.abc.Iterator[int]: ...\n"),
    (r"^class IHostMemory:\n", r"\g<0>    def __buffer__(self, flags: int, /) -> memoryview: ...\n"),
)


@dataclass(frozen=True)
class Release:
    """A release of Enterprise TensorRT's bindings, and the shared libraries they need."""

    name: str
    package: str
    version: str
    module: str
    libraries: tuple[str, ...]


_FULL = ("tensorrt_bindings.tensorrt", ("nvinfer", "nvinfer_plugin", "nvonnxparser"))
_LEAN = ("tensorrt_lean_bindings.tensorrt_lean", ("nvinfer_lean",))
RELEASES = (
    Release("10.16", "tensorrt-cu13-bindings", "10.16.1.11", *_FULL),
    Release("11.4", "tensorrt-cu13-bindings", "11.4.0.106", *_FULL),
    Release("lean-11.4", "tensorrt-lean-cu13-bindings", "11.4.0.106", *_LEAN),
)


class Unavailable(Exception):  # noqa: N818  no error of ours: there is no compiler here, or no wheel to be had
    """Why the real bindings cannot be asked here."""


def make_stub(release: Release, folder: Path) -> str:
    """The stub of this release, whose bindings are installed and imported within ``folder``.

    Raises:
        Unavailable: gcc is missing, or the wheel cannot be downloaded.
    """
    libraries, wheel = folder / "libraries", folder / "wheel"
    libraries.mkdir(parents=True)
    source = libraries / "stub.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    major = release.version.partition(".")[0]
    for library in release.libraries:
        _need("gcc", "-shared", "-fPIC", "-o", str(libraries / f"lib{library}.so.{major}"), str(source))
    pip = (sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps")
    _need(*pip, "--only-binary", ":all:", "--target", str(wheel), f"{release.package}=={release.version}")
    return write_stub(release.module, folder, PYTHONPATH=str(wheel), LD_LIBRARY_PATH=str(libraries))


def write_stub(module: str, folder: Path, **environment: str) -> str:
    """The stub of bindings that can be imported, read by a process of its own; ``folder`` takes its files."""
    stubgen = [sys.executable, "-c", "from mypy.stubgen import main; main()"]
    arguments = ["--inspect-mode", "--module", module, "--output", str(folder)]
    variables = {**os.environ, **environment}
    subprocess.run([*stubgen, *arguments], check=True, capture_output=True, timeout=300, env=variables)
    text = (folder / f"{module.replace('.', '/')}.pyi").read_text(encoding="utf-8")
    for pattern, replacement in _CORRECTIONS:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count or "lean" in module, f"the bindings changed: nothing to correct by {pattern!r}"
    return text


def _need(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except FileNotFoundError as error:
        raise Unavailable(f"needs {command[0]}") from error
    if done.returncode:
        raise Unavailable(f"{command[0]} failed: {done.stderr.strip()[-300:]}")


def main() -> None:
    """Write the stubs that the tests and ``make lint`` read."""
    for release in RELEASES:
        target = GOLDEN / release.name / "tensorrt.pyi"
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            target.write_text(make_stub(release, Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
