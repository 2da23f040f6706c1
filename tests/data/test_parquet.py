"""Images of Parquet files beside the same images in folders."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from saq_qat.data import ImageData, open_data, val_batches
from saq_qat.errors import DataError, SetupError
from saq_qat.recipe.schema import Data

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")

CLASSES = ["ant", "bee", "cat"]


def opened(**section: Any) -> ImageData:
    return open_data(TypeAdapter[Data](Data).validate_python(section), 0)


def photo(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (18, 20, 3), np.uint8)


def encoded(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photo(seed)).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, seeds: range, *, names: list[str] | None = None, **columns: list[Any]) -> None:
    """A file of images, one of each seed, whose label is the seed's rest by three."""
    images = [{"bytes": encoded(seed), "path": f"{seed}.png"} for seed in seeds]
    table = pyarrow.table({"image": images, "label": [seed % 3 for seed in seeds], **columns})
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "hub"
    write(root / "data" / "train-00000-of-00002.parquet", range(4), names=CLASSES)
    write(root / "data" / "train-00001-of-00002.parquet", range(4, 6), names=CLASSES)
    write(root / "data" / "test-00000-of-00001.parquet", range(6, 9), names=CLASSES)
    return root


def test_images_are_those_of_a_folder_with_the_same_files(root: Path, tmp_path: Path) -> None:
    for split, seeds in (("train", range(6)), ("val", range(6, 9))):
        for seed in seeds:
            folder = tmp_path / "folder" / split / CLASSES[seed % 3]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{seed}.png").write_bytes(encoded(seed))
    options: dict[str, Any] = {"image_size": 14, "resize": 16}
    ours = opened(kind="parquet", root=str(root), **options)
    theirs = opened(kind="imagefolder", root=str(tmp_path / "folder"), **options)
    assert ours.classes == theirs.classes and ours.preprocessing == theirs.preprocessing
    assert ours.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    order = np.argsort(ours.train.labels, kind="stable")
    assert np.array_equal(ours.train.read_batch(order), theirs.train.read_batch(np.arange(6)))
    (images, labels), *_ = val_batches(ours, batch_size=8)
    (same, expected), *_ = val_batches(theirs, batch_size=8)
    assert (images == same).all() and labels.tolist() == expected.tolist() == [0, 1, 2]


def test_whole_images_are_cropped_for_training_and_squares_need_no_crop(root: Path) -> None:
    data = opened(kind="parquet", root=str(root), image_size=8, augmentation="resized_crop_flip")
    assert np.array_equal(data.train.read(3), photo(3))
    assert data.val.read(0).shape == (8, 8, 3)
    assert data.preprocessing.resize is None


def test_folders_may_name_the_split_and_validation_comes_before_test(root: Path) -> None:
    write(root / "plain" / "validation" / "0000.parquet", range(2), names=CLASSES)
    assert len(opened(kind="parquet", root=str(root), image_size=8).val) == 2
    assert len(opened(kind="parquet", root=str(root), image_size=8, val_split="test").val) == 3


def test_limits_hold_and_numbers_name_classes_that_have_no_names(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", range(6))
    write(tmp_path / "test-0.parquet", range(3))
    data = opened(kind="parquet", root=str(tmp_path), image_size=8, train_limit=3)
    assert data.classes == ("0", "1", "2") and data.train.labels.tolist() == [0, 1, 2]


def test_another_column_may_hold_the_labels_or_the_images(tmp_path: Path) -> None:
    for split in ("train", "test"):
        file = tmp_path / f"{split}-0.parquet"
        write(file, range(3), fine=[4, 3, 2], photo=[encoded(seed) for seed in range(7, 10)])
    data = opened(
        kind="parquet", root=str(tmp_path), image_size=20, label_column="fine", image_column="photo",
        augmentation="resized_crop_flip",
    )  # fmt: skip  # one value a line is a page
    assert data.train.labels.tolist() == [4, 3, 2]
    assert np.array_equal(data.train.read(0), photo(7))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"val_split": "dev"}, "no Parquet file of the split 'dev'.*that are there: test, train"),
        ({"label_column": "species"}, "data.label_column is species.*columns image, label"),
        ({"label_column": "image"}, "labels must be whole numbers"),
        ({"image_column": "label"}, "row 0: an image must be the bytes of its file; it is a int"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_is_there(
    root: Path, section: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        opened(kind="parquet", root=str(root), **section)


def test_a_missing_label_column_and_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", range(3), names=["ant", "bee"])
    write(tmp_path / "test-0.parquet", range(3))
    with pytest.raises(DataError, match=r"labels must be from 0 to 1.*found 0 to 2"):
        opened(kind="parquet", root=str(tmp_path))


def test_a_damaged_image_is_named_by_file_and_row(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}-0.parquet", range(2), img=[b"no image", encoded(0)])
    data = opened(kind="parquet", root=str(tmp_path), image_size=8, image_column="img")
    with pytest.raises(DataError, match=r"test-0\.parquet, row 0' is refused"):
        data.val.read(0)


def test_damaged_files_and_a_missing_library_are_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        opened(kind="parquet", root=str(root))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SetupError, match=r"saq-qat\[parquet\]"):
        opened(kind="parquet", root=str(root))


def test_several_forms_of_a_data_set_are_not_read_as_one(root: Path) -> None:
    write(root / "320px" / "train-00000-of-00001.parquet", range(4), names=CLASSES)
    with pytest.raises(DataError, match=r"'train' in several folders.*320px, data\. Name one"):
        opened(kind="parquet", root=str(root), image_size=8)
    write(root / "plain" / "train" / "0000.parquet", range(4))
    write(root / "plain" / "train" / "0001.parquet", range(4))
    write(root / "plain" / "test" / "0000.parquet", range(4))
    assert len(opened(kind="parquet", root=str(root / "plain"), image_size=8).train) == 8


@pytest.mark.parametrize(
    ("file", "names", "told"),
    [
        ("test-00000-of-00001", ["ant", "cat", "bee"], "bee and cat for label 1"),
        ("train-00001-of-00002", ["bee", "ant", "cat"], "ant and bee for label 0"),
        ("train-00001-of-00002", [*CLASSES, "dog"], "3 and 4 classes"),
    ],
)
def test_files_that_name_the_labels_otherwise_are_refused(
    root: Path, file: str, names: list[str], told: str
) -> None:
    write(root / "data" / f"{file}.parquet", range(6, 9), names=names)
    with pytest.raises(DataError, match=f"{file}.*otherwise than the training files.*{told}"):
        opened(kind="parquet", root=str(root), image_size=8)


def test_a_split_without_rows_and_a_damaged_page_are_told(root: Path) -> None:
    val = root / "data" / "test-00000-of-00001.parquet"
    whole = val.read_bytes()
    parquet.write_table(parquet.read_table(val).slice(0, 0), val)
    with pytest.raises(DataError, match=r"test-0.*has no rows"):
        opened(kind="parquet", root=str(root), image_size=8)
    val.write_bytes(whole[:8] + bytes(200) + whole[208:])
    with pytest.raises(DataError, match=r"test-0.*cannot be read as Parquet"):
        opened(kind="parquet", root=str(root), image_size=8)
