"""The real TensorRT-RTX, which builds engines without a GPU but cannot run them; in child processes."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.tensorrt.build.engine import build_engine, write_engine
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from saq_qat_runtime.tensorrt.driver import driver_status
from tests.runtime.bundles import file_record
from tests.runtime.networks import float_network

pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
pytestmark = pytest.mark.skipif(driver_status().usable, reason="tells of a machine without a GPU")


@pytest.fixture
def folder(bundle: Path, change_manifest: Callable[..., None]) -> Path:
    """A bundle with a real engine beside it."""
    source = bundle / "model.tensorrt.onnx"
    source.write_bytes(float_network().SerializeToString())
    manifest = Manifest.load(bundle)
    change_manifest(
        models={**manifest.models, "tensorrt": file_record(source)},
        golden=replace(manifest.golden, logits_tolerance={"onnxruntime": 0.0, "tensorrt": 1.0}),
    )
    write_engine(bundle, build_engine(source, BuildOptions(flavour="tensorrt-rtx", batch=(1, 2, 4))))
    return bundle


def output_of(code: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", code, *arguments]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


LOAD = """
import sys
from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.session import Session
try:
    Session.load(sys.argv[1], backend="tensorrt-rtx")
except BackendUnavailable as error:
    print(error)
print(*(name for name in sys.modules if name.startswith("tensorrt")))
with Session.load(sys.argv[1]) as session:
    print(session.info.backend, *session.info.skipped)
"""


def test_without_a_driver_the_process_lives_on_and_says_why(folder: Path) -> None:
    first, second, third = output_of(LOAD, str(folder))
    assert first.startswith("TensorRT engines need a GPU. ")
    assert second == "", "the library must not even be imported"
    assert third == f"onnxruntime tensorrt-rtx: {first}"


REFUSED = """
import sys
from pathlib import Path
from types import SimpleNamespace
from saq_qat_runtime.tensorrt.driver import DriverStatus
from saq_qat_runtime.tensorrt.engine_record import EngineRecord
from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.tensorrt.backend import Machine, TensorRtBackend
from saq_qat_runtime.tensorrt.library import ENGINE_LIBRARIES, import_library
folder = Path(sys.argv[1])
record = EngineRecord.load(folder, "model.rtx.plan")
status = DriverStatus(True, "", "GPU", record.compute_capabilities[0], "13.0", "580")
machine = Machine(lambda: SimpleNamespace(status=status), import_library)
try:
    TensorRtBackend((folder / "model.rtx.plan").read_bytes(), record, ENGINE_LIBRARIES[2], machine=machine)
except BackendUnavailable as error:
    print(error)
"""


def test_a_refusal_of_the_real_library_comes_in_its_own_words(folder: Path) -> None:
    """On a machine that claims to have a GPU: every check passes, and the library itself finds none."""
    (message,) = output_of(REFUSED, str(folder))
    assert message.startswith("tensorrt_rtx refused model.rtx.plan: ")
    assert "CUDA driver version is insufficient" in message
    assert message.endswith("Build it again on this machine: saq-qat-runtime build FOLDER.")
