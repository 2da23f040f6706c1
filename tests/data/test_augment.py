"""Augmentation: what it may do to pixels, and that it needs nothing but the numbers it is given."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from saq_qat.data.augment import (
    Augmentation,
    augmented,
    crop_flip,
    crop_flip_in_torch,
    cropped_box,
    numbers_per_sample,
)
from saq_qat.data.images import MemoryImages


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), np.uint8)


def rows(
    augmentation: Augmentation, count: int, seed: int = 0
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).random((count, numbers_per_sample(augmentation)))


def augment(
    images: list[NDArray[np.uint8]], augmentation: Augmentation, size: int, numbers: NDArray[np.float64]
) -> NDArray[np.uint8]:
    held = MemoryImages(np.stack(images), np.zeros(len(images), np.int64))
    return augmented(held, np.arange(len(images)), augmentation, size, numbers)


def one_by_one(squares: NDArray[np.uint8], numbers: NDArray[np.float64]) -> NDArray[np.uint8]:
    """crop_flip as it is defined, image by image."""
    size = squares.shape[1]
    margin = size // 8
    crops = []
    for square, row in zip(squares, numbers, strict=True):
        padded = np.pad(square, ((margin, margin), (margin, margin), (0, 0)))
        top, left = (int(number * (2 * margin + 1)) for number in row[:2])
        crop = padded[top : top + size, left : left + size]
        crops.append(crop[:, ::-1] if row[2] < 0.5 else crop)
    return np.stack(crops)


def test_none_changes_nothing() -> None:
    images = [image(8, 8, seed) for seed in range(3)]
    assert np.array_equal(augment(images, "none", 8, rows("none", 3)), np.stack(images))


@given(size=st.integers(1, 40), count=st.integers(1, 9), seed=st.integers(0, 1000))
def test_crop_flip_of_a_batch_is_that_of_its_images_bit_for_bit(size: int, count: int, seed: int) -> None:
    squares = np.stack([image(size, size, seed + index) for index in range(count)])
    numbers = rows("crop_flip", count, seed)
    before = squares.copy()
    expected = one_by_one(squares, numbers)
    assert np.array_equal(crop_flip(squares, numbers), expected)
    assert np.array_equal(crop_flip_in_torch(torch.from_numpy(squares), numbers).numpy(), expected)
    assert np.array_equal(squares, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_crops_and_mirrors_to_the_same_bits() -> None:
    squares, numbers = np.stack([image(32, 32, seed) for seed in range(64)]), rows("crop_flip", 64)
    found = crop_flip_in_torch(torch.from_numpy(squares).cuda(), numbers).cpu().numpy()
    assert np.array_equal(found, one_by_one(squares, numbers))


def test_crop_flip_reaches_every_offset_and_both_directions() -> None:
    crops = augment([image(16, 16)] * 2000, "crop_flip", 16, rows("crop_flip", 2000))
    assert len(np.unique(crops.reshape(2000, -1), axis=0)) == 5 * 5 * 2


@given(
    width=st.integers(1, 60), height=st.integers(1, 60), size=st.integers(1, 32), seed=st.integers(0, 1000)
)
def test_resized_crop_takes_any_shape(width: int, height: int, size: int, seed: int) -> None:
    crops = augment([image(height, width)], "resized_crop_flip", size, rows("resized_crop_flip", 1, seed))
    assert crops.shape == (1, size, size, 3)
    assert crops.dtype == np.uint8


@given(width=st.integers(1, 300), height=st.integers(1, 300), seed=st.integers(0, 1000))
def test_a_box_lies_in_its_image(width: int, height: int, seed: int) -> None:
    left, upper, right, lower = cropped_box(rows("resized_crop_flip", 1, seed)[0].tolist(), width, height)
    assert 0 <= left < right <= width and 0 <= upper < lower <= height


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (32, 32), (1000, 100), (90, 1000)])
def test_boxes_are_spread_as_those_of_torchvision(size: tuple[int, int]) -> None:
    """Area, aspect and place against RandomResizedCrop's own: deciles of 4,000 boxes each, in percent."""
    width, height = size
    theirs = v2.RandomResizedCrop(16)
    torch.manual_seed(0)
    drawn = [theirs.make_params([torch.empty(3, height, width)]) for _ in range(4000)]
    reference = np.array([(d["left"], d["top"], d["width"], d["height"]) for d in drawn], float)
    boxes = [cropped_box(row, width, height) for row in rows("resized_crop_flip", 4000).tolist()]
    found = np.array(
        [(left, upper, right - left, lower - upper) for left, upper, right, lower in boxes], float
    )

    def described(these: NDArray[Any]) -> NDArray[Any]:
        left, upper, wide, high = these.T
        each = (wide * high / (width * height), wide / high / 2, left / width, upper / height)
        return np.asarray(np.quantile(100 * np.stack(each), np.linspace(0.1, 0.9, 9), axis=1))

    assert np.abs(described(found) - described(reference)).max() < 3.5


def test_without_a_box_that_fits_it_is_the_largest_central_one() -> None:
    row = [0.0, 0.0, 0.0] + [1.0 - 1e-9, 0.5] * 10  # the whole area as a square
    assert cropped_box(row, 400, 100) == (133, 0, 266, 100)
    assert cropped_box(row, 100, 400) == (0, 133, 100, 266)


def test_a_resized_crop_is_pillows_of_its_box() -> None:
    original, numbers = image(37, 51), rows("resized_crop_flip", 1, 3)
    found = augment([original], "resized_crop_flip", 16, numbers)[0]
    box = cropped_box(numbers[0].tolist(), 51, 37)
    expected = Image.fromarray(original).resize((16, 16), Image.Resampling.BILINEAR, box=box)
    assert np.array_equal(found, np.asarray(expected)[:, :: -1 if numbers[0, 2] < 0.5 else 1])


def test_resized_crop_of_a_gradient_stays_inside_it() -> None:
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[None, :, None], (100, 100, 3))
    crops = augment([ramp] * 500, "resized_crop_flip", 16, rows("resized_crop_flip", 500))
    spans = np.ptp(crops[:, 8, :, 0].astype(int), axis=1) / 100
    # Side lengths of crops of 8 to 100 % of the area with aspect 3:4 to 4:3 run from 0.245 to 1.
    assert 0.15 < spans.min() < 0.35
    assert spans.max() > 0.8
    rising = crops[:, 8, -1, 0] > crops[:, 8, 0, 0]
    assert 0.4 < rising.mean() < 0.6


@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop_flip"])
def test_a_sample_does_not_depend_on_its_batch(augmentation: Augmentation) -> None:
    images, numbers = [image(16, 16, seed) for seed in range(6)], rows(augmentation, 6)
    together = augment(images, augmentation, 16, numbers)
    for index in range(6):
        alone = augment([images[index]], augmentation, 16, numbers[index : index + 1])
        assert np.array_equal(together[index], alone[0])
