"""The runtime embeds anywhere: proved in interpreters that hold nothing else."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import saq_qat_runtime

PACKAGE = Path(saq_qat_runtime.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem not in ("__init__", "__main__")
    and path.parent.name != "web"  # serve.web has an extra of its own
)
FORBIDDEN = ("torch", "torchvision", "pydantic", "ruamel", "onnx", "saq_qat", "saq_qat_export")


def run_isolated(code: str, *paths: Path) -> str:
    """Output of `code` where only the standard library and `paths` can be imported."""
    head = f"import sys\nsys.path[:0] = {list(map(str, paths))!r}\n"
    command = [sys.executable, "-I", "-S", "-c", head + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def lean(tmp_path: Path) -> Path:
    """A folder of packages that holds the runtime, numpy and onnxruntime, and neither pillow nor torch."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / PACKAGE.name).symlink_to(PACKAGE)
    for name in ("numpy", "onnxruntime"):
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        for source in (Path(spec.origin).parent, Path(spec.origin).parent.with_name(f"{name}.libs")):
            if source.exists():
                (folder / source.name).symlink_to(source)
    return folder


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if m.startswith(("bundle.", "tensorrt.build."))]
    + ["tensorrt.engine_record", "tensorrt.driver", "errors", "kernels", "operators"],
)
def test_reads_manifests_with_the_standard_library_alone(module: str) -> None:
    run_isolated(f"import saq_qat_runtime.{module}", PACKAGE.parent)


def test_imports_no_engine_and_nothing_of_training_by_itself(lean: Path) -> None:
    imports = "".join(f"import saq_qat_runtime.{module}\n" for module in MODULES)
    engines = ("onnxruntime", "tensorrt", "tensorrt_lean", "tensorrt_rtx", "cuda", "PIL")
    loaded = f"print(*(set(sys.modules) & set({(*FORBIDDEN, *engines)!r})))"
    assert run_isolated(imports + loaded, lean).strip() == ""


def test_runs_a_bundle_with_numpy_and_one_engine_installed(lean: Path, bundle: Path) -> None:
    code = f"""
import numpy
from saq_qat_runtime.session import Session
with Session.load({str(bundle)!r}, threads=1) as session:
    session.self_test()
    (best, *_), = session.predict(numpy.zeros((8, 8, 3), numpy.uint8))
    assert session(numpy.zeros((2, 3, 8, 8), numpy.float32)).shape == (2, 5)
    assert session.integer_count().integer == 3
    try:
        session.predict(b"file")
    except Exception as error:  # its type is what is asked
        print(type(error).__name__, error)
print(*(set(sys.modules) & set({FORBIDDEN!r})))
"""
    output = run_isolated(code, lean)
    assert output.splitlines()[0].startswith("BackendUnavailable Images need pillow")
    assert output.splitlines()[1] == ""


def test_the_full_interpreter_loads_no_torch_either() -> None:
    code = f"import saq_qat_runtime.session, sys; print(*(set(sys.modules) & set({FORBIDDEN!r})))"
    environment = {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == ""
