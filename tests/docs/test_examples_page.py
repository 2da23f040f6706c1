"""examples/README.md: its lines of Python run from top to bottom, and it lists every name of the door."""

import re
from pathlib import Path

import pytest

import saq_qat as sq
from saq_qat_runtime.bundle.manifest import Manifest
from tests.train.small_recipe import SMALL_RECIPE

DOCUMENT = Path(__file__).parents[2] / "examples/README.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_its_blocks_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loose = "deploy: {thresholds: {max_top1_drop: 100, max_flip_rate: 1}}  # eight images of noise\n"
    Path("recipe.yaml").write_text(SMALL_RECIPE.strip() + "\n" + loose)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 6
    exec(compile("\n".join(blocks), str(DOCUMENT), "exec"), {"__name__": "page"})
    manifest = Manifest.load(Path("bundle"))
    assert manifest.gate.passed
    assert sorted(manifest.models) == ["onnxruntime", "tensorrt"]


def test_its_table_has_every_function_and_class_that_is_called() -> None:
    rows = set(re.findall(r"^\| `(\w+)\(", TEXT, re.MULTILINE))
    assert rows == set(sq.__all__) - {"__version__", "Bundle", "QuantizedNetwork"}
