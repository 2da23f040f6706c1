from pathlib import Path

import pytest
from PIL import Image

from saq_qat.data.names import image_names
from saq_qat.data.open import open_data
from saq_qat.recipe.schema import Digits, ImageFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / split / name
            (folder / "more").mkdir(parents=True)
            for file in ("1.png", "2.png", "more/1.png"):
                Image.new("RGB", (8, 8)).save(folder / file)
    return tmp_path


def names(data: ImageFolder | Digits) -> list[str]:
    return list(image_names(data, open_data(data, 0).val))


def test_an_image_of_a_folder_is_called_by_its_path_below_its_split(root: Path) -> None:
    data = ImageFolder(kind="imagefolder", root=str(root), val_folder="test", image_size=8)
    files = ["cat/1.png", "cat/2.png", "cat/more/1.png", "dog/1.png", "dog/2.png", "dog/more/1.png"]
    assert names(data) == files
    limited = names(data.model_copy(update={"val_limit": 2}))
    assert len(limited) == 2 and set(limited) < set(files)


def test_images_held_out_of_training_are_called_by_their_path_below_train(root: Path) -> None:
    data = ImageFolder(kind="imagefolder", root=str(root), val_folder="test", image_size=8, held_out=2)
    assert all((root / "train" / name).is_file() for name in names(data))


def test_images_without_files_are_called_by_their_index() -> None:
    assert names(Digits(kind="digits", image_size=8, val_limit=3)) == ["0", "1", "2"]
