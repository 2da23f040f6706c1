"""A disk that fills up while a bundle is made: in words that name the place, and what was there stays."""

import subprocess
import sys
from pathlib import Path

import pytest

IN_A_FULL_FOLDER = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from saq_qat.errors import SaqError
from saq_qat_export.bundle.write import Bundle, write_bundle
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import ResultError
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
folder = Path(sys.argv[1])
files = {path.name: path.read_bytes() for path in folder.iterdir()}
manifest = Manifest.load(folder)
del files["manifest.json"]
backend = OnnxRuntimeBackend(files["model.onnx"], threads=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits = sorted({0, 1, 100, *(len(content) - 1 for content in files.values())})
for limit in limits:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_bundle(Bundle(manifest, {**files, "golden.npz": b"new" + files["golden.npz"]}), folder)
    except SaqError as error:
        assert "cannot be written" in str(error) and "untouched" in str(error), error
    else:
        raise SystemExit(f"written within {limit} bytes")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in files} == files
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
for limit in (0, 1, 1000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        backend.integer_count()
    except ResultError as error:
        assert "cannot be written to a temporary folder" in str(error) and "TMPDIR" in str(error), error
        assert "cannot load" not in str(error) and "Export" not in str(error), error
    else:
        raise SystemExit(f"counted within {limit} bytes")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert backend.integer_count().integer == 3
print(len(limits))
"""


@pytest.fixture
def alone(bundle: Path, tmp_path: Path) -> Path:
    """The bundle in a folder that holds nothing else."""
    parent = tmp_path / "exports"
    parent.mkdir()
    return bundle.rename(parent / "bundle")


def test_whatever_is_full_the_older_bundle_stays_and_the_message_says_where(alone: Path) -> None:
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", IN_A_FULL_FOLDER, str(alone)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout
    assert int(done.stdout) == 6
