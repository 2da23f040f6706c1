"""Lines of the documents bring archives into folders: run as they stand there, on stand-ins of these."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from saq_qat.data.folder import find_images
from tests.docs.paper_tables import IMAGENET, TRANSFER, code_blocks


def run_block(document: Path, marker: str) -> None:
    """Run the one block of Python that names ``marker``, in the working directory."""
    (block,) = (block for block in code_blocks(document) if marker in block)
    exec(compile(block, str(document), "exec"), {"__name__": "block"})


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def names(root: Path, split: str) -> dict[str, list[str]]:
    return {
        folder.name: sorted(file.name for file in folder.iterdir()) for folder in (root / split).iterdir()
    }


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_validation_images_of_imagenet_come_into_the_folders_of_their_names() -> None:
    """Its numbers are not places among the sorted folders: here 1 is the last of them, 3 an inner synset."""
    root = Path("data/imagenet")
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    synsets = np.array(
        [(1, "n03000000", "cat", 0), (2, "n01000000", "ant", 0), (3, "n02000000", "animal", 2)], dtype=kinds
    )
    savemat(kit / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n1\n")
    for number in (1, 2, 3):
        write_image(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    for wnid in ("n01000000", "n03000000"):
        write_image(root / "train" / wnid / f"{wnid}_1.JPEG")
    run_block(IMAGENET, "meta.mat")
    _, val, classes = find_images(root)
    assert classes == ("n01000000", "n03000000")
    assert [(path.name[-6], label) for path, label in zip(val.paths, val.labels.tolist(), strict=True)] == [
        ("1", 0),
        ("2", 1),
        ("3", 1),
    ]


def test_pets_come_into_the_folders_of_their_breeds() -> None:
    source = Path("data/oxford-iiit-pet")
    (source / "annotations").mkdir(parents=True)
    (source / "annotations" / "trainval.txt").write_text("Maine_Coon_1 1 1 1\npug_7 2 2 1\n")
    (source / "annotations" / "test.txt").write_text("pug_8 2 2 1\n")
    for name in ("Maine_Coon_1", "pug_7", "pug_8"):
        write_image(source / "images" / f"{name}.jpg")
    run_block(TRANSFER, "oxford-iiit-pet")
    root = Path("data/pets")
    assert names(root, "train") == {"Maine_Coon": ["Maine_Coon_1.jpg"], "pug": ["pug_7.jpg"]}
    assert names(root, "val") == {"pug": ["pug_8.jpg"]}
    assert find_images(root)[2] == ("Maine_Coon", "pug")


def test_flowers_come_into_the_folders_of_their_numbers() -> None:
    source = Path("data/flowers-102")
    for number in (1, 2, 3, 4):
        write_image(source / "jpg" / f"image_{number:05d}.jpg")
    savemat(source / "imagelabels.mat", {"labels": np.array([[77, 5, 5, 77]], np.uint8)})
    savemat(source / "setid.mat", {"trnid": [[3]], "valid": [[1]], "tstid": [[2, 4]]})
    run_block(TRANSFER, "flowers-102")
    root = Path("data/flowers102")
    assert names(root, "train") == {"005": ["image_00003.jpg"], "077": ["image_00001.jpg"]}
    assert names(root, "val") == {"005": ["image_00002.jpg"], "077": ["image_00004.jpg"]}
    assert find_images(root)[2] == ("005", "077")
