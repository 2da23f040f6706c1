"""Every example runs as its reader runs it, and ends with a bundle that was proved."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.session import Session

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {"with_lightning.py": "lightning"}


@pytest.mark.parametrize(
    "example",
    [
        # Lightning alone takes seconds to import; the plain loop goes the same way through the door.
        pytest.param(path, id=path.name, marks=pytest.mark.slow if path.name in NEEDS else ())
        for path in EXAMPLES
    ],
)
def test_an_example_trains_exports_and_proves(example: Path, tmp_path: Path) -> None:
    package = NEEDS.get(example.name)
    if package is not None and find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed; pip install {package}")
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "export", "runtime"))
    done = subprocess.run(
        [sys.executable, str(example), "--folder", "bundle"],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=400,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip  # one value a line is a page
    assert done.returncode == 0, done.stderr
    assert "proved" in done.stdout
    manifest = Manifest.load(tmp_path / "bundle")
    assert manifest.gate.passed
    assert all(layer.integer for layer in manifest.layers)
    with Session.load(tmp_path / "bundle") as session:
        session.self_test()


def test_every_example_is_told_of_and_shown_as_it_is_called() -> None:
    text = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    for example in EXAMPLES:
        assert f"python examples/{example.name}" in text
        assert f"python examples/{example.name}" in example.read_text(encoding="utf-8")
