"""Flipped images are shown small, and the right ones."""

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from saq_qat.data.open import open_data
from saq_qat.recipe.schema import ImageFolder
from saq_qat.report.collect import Collected
from saq_qat.report.predictions import Predictions
from saq_qat.report.thumbnails import data_uri, flips_of

NAMES = tuple("abcdefghij")


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_a_flip_of_verify_is_shown_with_its_own_image(complete: Collected) -> None:
    found = flips_of(complete, None, NAMES, 24)
    assert found is not None and (found.total, found.images, found.missing) == (1, 40, "")
    (flip,) = found.shown
    assert (flip.name, flip.label, flip.fake_quant, flip.deployed) == ("image 3", "b", "b", "c")
    images = open_data(complete.recipe.data, complete.recipe.seed).val
    assert (pixels(flip.picture) == images.read(3)).all()


def test_without_verify_those_of_eval_are_shown(complete: Collected) -> None:
    labels = np.zeros(40, np.int64)
    deployed = labels.copy()
    deployed[[5, 9, 11]] = 2
    predictions = Predictions(tuple(f"{i}.png" for i in range(40)), labels, labels, deployed)
    found = flips_of(dataclasses.replace(complete, proof=None), predictions, NAMES, 2)
    assert found is not None and found.total == 3 and "saq-qat eval" in found.source
    assert [(flip.name, flip.deployed) for flip in found.shown] == [("5.png", "c"), ("9.png", "c")]
    assert flips_of(dataclasses.replace(complete, proof=None), None, NAMES, 2) is None


def test_data_that_is_elsewhere_leaves_the_names_and_says_why(complete: Collected) -> None:
    gone = ImageFolder.model_validate({"kind": "imagefolder", "root": "/no/such/folder", "image_size": 8})
    recipe = complete.recipe.model_copy(update={"data": gone})
    found = flips_of(dataclasses.replace(complete, recipe=recipe), None, NAMES, 24)
    assert found is not None and found.shown[0].picture == ""
    assert "/no/such/folder" in found.missing


@pytest.mark.parametrize(("side", "form", "most"), [(8, "png", 400), (32, "png", 5000), (224, "jpeg", 6000)])
def test_thumbnails_are_small_and_keep_small_images_whole(side: int, form: str, most: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    uri = data_uri(image)
    assert uri.startswith(f"data:image/{form};base64,") and len(uri) < most * 4
    assert form == "jpeg" or (pixels(uri) == image).all()
    assert max(pixels(uri).shape) <= 96
