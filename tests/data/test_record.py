"""A network's record of its data: it survives JSON, and every difference is named with both values."""

import json
from dataclasses import replace
from typing import Any

import pytest

from saq_qat.data.open import ImageData, open_data
from saq_qat.data.record import (
    check_data_record,
    data_differences,
    data_record,
    data_record_from_json,
    data_record_to_json,
)
from saq_qat.errors import ArtifactError
from saq_qat.recipe.schema import Synthetic

ONE_MEAN = {"image_size": 8, "resize": None, "channels": 3, "mean": [0.5], "std": [1.0]}


@pytest.fixture(scope="module")
def images() -> ImageData:
    return open_data(Synthetic(kind="synthetic", image_size=8, train_size=16, val_size=8), seed=0)


def test_a_record_survives_json(images: ImageData) -> None:
    record = data_record(images)
    text = json.dumps(data_record_to_json(record), allow_nan=False)
    assert data_record_from_json(json.loads(text), "here") == record
    check_data_record(record, images, "last")


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"classes": ["a"]},
        {"classes": 3, "preprocessing": {}},
        {"classes": [], "preprocessing": ONE_MEAN},
    ],
)
def test_something_else_is_no_record(value: Any) -> None:
    with pytest.raises(ArtifactError, match=r"^state\.json: no record of classes and preprocessing"):
        data_record_from_json(value, "state.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 9),
        ("resize", 10),
        ("mean", (0.5, 0.5, 0.25)),
        ("std", (1.0, 1.0, 1.0)),
    ],
)
def test_other_preprocessing_is_refused_with_both_values(images: ImageData, name: str, value: Any) -> None:
    other = replace(images, preprocessing=replace(images.preprocessing, **{name: value}))
    with pytest.raises(ArtifactError) as refused:
        check_data_record(data_record(images), other, "last")
    trained = getattr(images.preprocessing, name)
    assert f"  {name}: {trained} in training, {value} here\n" in str(refused.value)


def test_other_classes_are_shown_from_the_first_that_differs(images: ImageData) -> None:
    trained = data_record(images)
    swapped = replace(trained, classes=(*trained.classes[:8], "class 9", "class 8"))
    (line,) = data_differences(trained, swapped, now="here")
    assert line.startswith("classes: 10 from index 8 on (class 8, class 9) in training, ")
    assert line.endswith(", 10 from index 8 on (class 9, class 8) here")
    fewer = replace(trained, classes=trained.classes[:3])
    assert list(data_differences(trained, fewer, now="here")) == [
        "classes: 10 from index 3 on (class 3, class 4, class 5, class 6, class 7, ...) in training, 3 here"
    ]


def test_fields_that_do_not_matter_are_left_out(images: ImageData) -> None:
    trained = data_record(images)
    other = replace(trained, preprocessing=replace(trained.preprocessing, resize=10))
    assert list(data_differences(trained, other, now="here", only=("image_size", "mean"))) == []
