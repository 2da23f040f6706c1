"""What our code takes of TensorRT exists in every version that it serves (rule TRT203): mypy and stubs."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import pytest

from tests.contract.tensorrt_stubs import GOLDEN, RELEASES, Release, Unavailable, make_stub, write_stub
from tests.runtime.fake_tensorrt import FakeContext, FakeEngine, FakeRuntime

ROOT = Path(__file__).parents[2]
STUB = (GOLDEN / "11.4/tensorrt.pyi").read_text(encoding="utf-8")
SOURCES = ("saq_qat", "export", "runtime")
CONFIG = """
[mypy]
disallow_untyped_calls = True
explicit_package_bases = True
follow_imports = silent
[mypy-numpy.*,onnx.*,onnxruntime.*,torch.*]
follow_imports = skip
[mypy-tensorrt]
ignore_errors = True
"""
NUMPY_TOO = {"dtype", "float32", "shape"}
"""Names of NumPy too, which this configuration does not look into."""


def modules() -> dict[Path, str]:
    """Modules that name types of TensorRT, and what stands in them."""
    paths = (path for source in SOURCES for path in sorted((ROOT / source).rglob("*.py")))
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    return {path: text for path, text in texts.items() if "import tensorrt as trt" in text}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where mypy keeps what it knows of the standard library."""
    return tmp_path_factory.mktemp("mypy")


def complaints(stub: Path, checked: Iterable[Path], cache: Path) -> list[str]:
    """What mypy says of these files if ``stub`` is the folder with TensorRT's stub."""
    config = cache / "mypy.ini"
    config.write_text(CONFIG)
    places = (stub, ROOT, ROOT / "export", ROOT / "runtime")
    options = ["--config-file", str(config), "--cache-dir", str(cache)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *map(str, checked)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cache,
        timeout=300,
        env={**os.environ, "MYPYPATH": ":".join(map(str, places))},
    )
    assert not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def of(release: Release) -> list[Path]:
    """What must work with it: the lean runtime builds no engines."""
    lean = "lean" in release.name
    return [path for path, text in modules().items() if not (lean and "Builder" in text)]


def written(stub: str, folder: Path) -> Path:
    """A folder that holds nothing but this stub."""
    (folder / "stub").mkdir()
    (folder / "stub/tensorrt.pyi").write_text(stub, encoding="utf-8")
    return folder / "stub"


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_names_and_arguments_are_those_of_enterprise_tensorrt(release: Release, cache: Path) -> None:
    assert complaints(GOLDEN / release.name, of(release), cache) == []


def test_names_and_arguments_are_those_of_the_tensorrt_rtx_that_is_installed(
    tmp_path: Path, cache: Path
) -> None:
    if find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("needs the extra rtx")
    stub = written(write_stub("tensorrt_rtx_bindings.tensorrt_rtx", tmp_path), tmp_path)
    assert complaints(stub, modules(), cache) == []


def test_no_library_comes_in_as_anything() -> None:
    paths = (path for source in SOURCES for path in (ROOT / source).rglob("*.py"))
    assert [path for path in paths if "library: Any" in path.read_text(encoding="utf-8")] == []


@pytest.mark.slow  # types against the bindings of each release
@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_names_and_arguments_are_those_of_the_real_bindings(
    release: Release, tmp_path: Path, cache: Path
) -> None:
    try:
        stub = make_stub(release, tmp_path)
    except Unavailable as reason:
        pytest.skip(str(reason))  # what this machine lacks, in words
    assert complaints(written(stub, tmp_path), of(release), cache) == []


WRONG = (
    ("library.ProfilingVerbosity.DETAILED", "2"),
    ("library.MemoryPoolType.WORKSPACE, ", ""),
    ("library.MemoryPoolType.WORKSPACE, ", "0, "),
    ("library.Builder(logger)", "library.Builder()"),
    ("library.OnnxParser(network, logger)", "library.OnnxParser(network)"),
    ("profile.optimum, profile.maximum", "profile.optimum"),
    ("build_serialized_network(network, config)", "build_serialized_network(config, network)"),
)
"""Arguments in the builder's module, and what must not stand in their place."""

FAKES = {FakeRuntime: "Runtime", FakeEngine: "ICudaEngine", FakeContext: "IExecutionContext"}
"""Stand-ins for what needs a GPU, and their originals."""


@pytest.mark.parametrize("fake", FAKES, ids=FAKES.values())
def test_a_stand_in_takes_what_the_original_takes(fake: type) -> None:
    (original,) = (node for node in ast.parse(STUB).body if getattr(node, "name", "") == FAKES[fake])
    assert isinstance(original, ast.ClassDef)
    arguments: dict[str, set[int]] = {}
    for node in original.body:
        if isinstance(node, ast.FunctionDef):
            arguments.setdefault(node.name, set()).add(len(node.args.args))
    own = {name: value for name, value in vars(fake).items() if callable(value) and name[0] != "_"}
    assert {
        name: len(signature(value).parameters)
        for name, value in own.items()
        if len(signature(value).parameters) not in arguments.get(name, ())
    } == {}


def misspelt(path: Path, vocabulary: set[str]) -> Iterator[tuple[str, str]]:
    """The module once for every name of TensorRT's in it, with _x behind that name; and where that is."""
    source = path.read_bytes()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), ctx=ast.Store()):
                continue  # where an attribute of our own is made
            case ast.Attribute(attr=name, end_lineno=line, end_col_offset=column):
                pass
            case ast.keyword(arg=str(name), lineno=line, col_offset=start):
                column = start + len(name)
            case _:
                continue
        if name in vocabulary and line is not None and column is not None:
            lines = source.splitlines()
            lines[line - 1] = lines[line - 1][:column] + b"_x" + lines[line - 1][column:]
            yield f"{path.name}:{line}: {name}", b"\n".join(lines).decode()


def test_any_misspelt_name_and_any_wrong_argument_is_found(tmp_path: Path, cache: Path) -> None:
    vocabulary = set(re.findall(r"\w+(?=:|\(|,|\))", STUB)) - NUMPY_TOO
    cases = [case for path in modules() for case in misspelt(path, vocabulary)]
    assert len(cases) > 60
    (builder,) = (text for path, text in modules().items() if path.name == "builder.py")
    assert all(right in builder for right, _ in WRONG)
    cases += [(f"{right} -> {wrong}", builder.replace(right, wrong)) for right, wrong in WRONG]
    files = {tmp_path / f"case{index}.py": case for index, case in enumerate(cases)}
    for file, (_, text) in files.items():
        file.write_text(text, encoding="utf-8")
    found = {Path(line.partition(":")[0]).name for line in complaints(GOLDEN / "11.4", files, cache)}
    assert [where for file, (where, _) in files.items() if file.name not in found] == []
