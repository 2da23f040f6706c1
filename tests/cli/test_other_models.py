"""The table of networks in saq_qat/models/README.md, from check to verify: what it says is what happens."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

SaqQat = Callable[..., int]

README = Path(__file__).parents[2] / "saq_qat" / "models" / "README.md"
_ROW = re.compile(r"^\| `([\w.]+:\w+)` \| `(\{.*\})` \| (\d+) \| (\d+)/(\d+)", re.MULTILINE)
ROWS = _ROW.findall(README.read_text(encoding="utf-8"))
RECIPE = """
version: 1
name: other
model: {{name: "{name}", arguments: {arguments}}}
data: {{kind: synthetic, image_size: {side}, train_size: 16, val_size: 16}}
quant:
  weight: {{kind: saq, bits: 4}}
  activation: {{kind: saq, bits: 4}}
  calibration_batches: 2
train:
  batch_size: 8
  optimizer: {{kind: sgd}}
  stages:
    - {{kind: quantized, epochs: 1, lr: 0.001, method: {{kind: saq, rho: 0.2}}}}
    - {{kind: deploy, epochs: 1, lr: 0.001}}
deploy: {{targets: [onnxruntime, tensorrt]}}
"""


def write_recipe(folder: Path, name: str, arguments: str, side: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(name=name, arguments=arguments, side=side), encoding="utf-8")
    return str(path)


def require_library(name: str) -> None:
    if name.startswith("timm."):
        pytest.importorskip("timm", reason="needs the extra vit")


def test_the_table_has_both_families_of_both_libraries() -> None:
    libraries = [name.partition(".")[0] for name, *_ in ROWS]
    assert min(libraries.count("timm"), libraries.count("torchvision")) >= 10


@pytest.mark.slow  # a whole training and export of each
@pytest.mark.parametrize(
    ("name", "arguments", "side", "integer", "total"),
    ROWS,
    ids=[f"{name.partition(':')[2]}-{arguments}" for name, arguments, *_ in ROWS],
)
@pytest.mark.filterwarnings("ignore")  # of libraries, about their models
def test_a_network_of_the_table_is_trained_exported_and_proved(
    saq_qat: SaqQat, tmp_path: Path, name: str, arguments: str, side: str, integer: str, total: str
) -> None:
    require_library(name)
    recipe = write_recipe(tmp_path, name, arguments, side)
    assert saq_qat("check", recipe) == 0
    assert saq_qat("train", recipe, "--runs", str(tmp_path)) == 0
    (run,) = (tmp_path / "other").iterdir()
    size = ("--code-images", "2", "--top1-images", "16")
    assert saq_qat("export", str(run), *size) == 0
    # Answers after two steps are near to chance, and flip: exit code 1 is no surprise.
    assert saq_qat("verify", str(run), *size) in (0, 1)
    proof = json.loads((run / "report" / "verify.json").read_text(encoding="utf-8"))
    assert [
        comparison["name"]
        for comparison in proof["comparisons"]
        if comparison["hard"] and not comparison["passed"]
    ] == []
    (kernels,) = (
        comparison for comparison in proof["comparisons"] if comparison["name"].endswith("on integer kernels")
    )
    assert kernels["detail"].startswith(f"{integer}/{total} ")


@pytest.mark.parametrize("verb", ["check", "train"])
def test_images_that_a_network_refuses_are_an_error_of_the_recipe(
    saq_qat: SaqQat, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    pytest.importorskip("timm", reason="needs the extra vit")
    recipe = write_recipe(tmp_path, "saq_qat.models.vit:vit_micro", "{depth: 1}", "48")
    runs = ("--runs", str(tmp_path)) if verb == "train" else ()
    assert saq_qat(verb, recipe, *runs) == 2
    said = capsys.readouterr().err
    assert "data.image_size" in said and "(N, 3, 48, 48) in patch_embed" in said
    assert "It takes data.image_size: 32" in said and "img_size" in said
