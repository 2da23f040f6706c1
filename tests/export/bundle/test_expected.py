"""The images of expected.csv reach another machine as they were: same pixels, same input of the network."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saq_qat.data.images import FileImages
from saq_qat.data.open import ImageData, open_data
from saq_qat.data.sample import sample_validation
from saq_qat.data.transforms import EncodedImage, network_input
from saq_qat.errors import ArtifactError
from saq_qat.recipe.schema import Digits, ImageFolder, Thresholds
from saq_qat_export.bundle.expected import (
    expected_answers,
    expected_comparison,
    labels_by_name,
    write_images,
)
from saq_qat_export.proof.predictions import Agreement
from saq_qat_runtime.preprocess import preprocess

COUNT = 12


def restored(data: Any, images: ImageData) -> Any:
    """What of a run its images are found by."""
    deploy = SimpleNamespace(thresholds=Thresholds(max_flip_rate=0.1))
    return SimpleNamespace(recipe=SimpleNamespace(data=data, deploy=deploy), images=images)


def agreement(count: int = COUNT) -> Agreement:
    return Agreement(count, 0.0, 0.0, 0.0, 0, 0, (), tuple(range(count)))


def digits() -> Any:
    data = Digits(kind="digits", image_size=16)
    return restored(data, open_data(data, 0))


def photos(root: Path) -> Any:
    """Photographs of odd sizes in folders."""
    for split, count in (("train", 2), ("val", 10)):
        for label in ("ant", "bee"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.random.default_rng(index).integers(0, 256, (20 + index, 31, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{label} {index}.png")
    data = ImageFolder(kind="imagefolder", root=str(root), image_size=16)
    return restored(data, open_data(data, 0))


def encoded(run: Any) -> Any:
    """The same photographs as a column of a file has them."""
    own = run.images.val
    assert isinstance(own, FileImages)
    content = [Image.open(path) for path in own.paths if isinstance(path, Path)]
    jpegs = []
    for image in content:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
        jpegs.append(EncodedImage("row", buffer.getvalue()))
    images = FileImages(jpegs, own.labels, own.image_size, own.resize)
    return restored(SimpleNamespace(kind="parquet"), replace(run.images, val=images))


@pytest.fixture(params=["digits", "photos", "encoded"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    match request.param:
        case "digits":
            return digits()
        case "photos":
            return photos(tmp_path / "root")
    return encoded(photos(tmp_path / "root"))


def test_written_images_give_the_network_the_same_input_bit_by_bit(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert write_images(run, agreement(), folder) == COUNT
    expected, sample = expected_answers(run, agreement()), sample_validation(run.images, COUNT).val
    assert expected.labels == tuple(sample.labels.tolist())
    assert expected.predictions == tuple(range(COUNT))
    settings = run.images.preprocessing
    for index, name in enumerate(expected.images):
        image, _ = sample[index]
        trained = network_input(image.permute(1, 2, 0)[None], settings).numpy()
        np.testing.assert_array_equal(preprocess(folder / name, settings), trained)
    assert len([path for path in folder.rglob("*") if path.is_file()]) == COUNT


def test_every_name_belongs_to_one_image_and_its_label(run: Any) -> None:
    labels = labels_by_name(run)
    assert len(labels) == len(run.images.val)
    expected = expected_answers(run, agreement())
    assert [labels[name] for name in expected.images] == list(expected.labels)


def test_names_are_paths_below_the_split_or_numbers_with_the_images_format(tmp_path: Path) -> None:
    run = photos(tmp_path / "root")
    assert expected_answers(run, agreement(20)).images[0] == "ant/ant 0.png"
    assert expected_answers(encoded(run), agreement(20)).images[:2] == ("0.jpeg", "1.jpeg")
    assert expected_answers(digits(), agreement(360)).images[:2] == ("0.png", "1.png")


def test_images_go_to_no_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match="new or an empty folder"):
        write_images(digits(), agreement(), tmp_path)


def test_other_answers_than_now_are_counted_on_the_images_of_both() -> None:
    run = digits()
    shipped = expected_answers(run, agreement())
    assert expected_comparison(shipped, run, agreement()).passed
    other = replace(shipped, predictions=(5, *shipped.predictions[1:]))
    found = expected_comparison(other, run, agreement())
    assert (found.compared, found.mismatches, found.passed, found.hard) == (COUNT, 1, True, False)
    other = replace(shipped, predictions=(5, 5, *shipped.predictions[2:]))
    assert not expected_comparison(other, run, agreement()).passed
    assert expected_comparison(shipped, run, agreement(360)).compared == COUNT
