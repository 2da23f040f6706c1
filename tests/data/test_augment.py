"""Augmentation: what it may do to pixels, and that it needs nothing but the numbers it is given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from saq_qat.data.augment import Augmentation, augment, numbers_per_sample


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), np.uint8)


def rows(
    augmentation: Augmentation, count: int, seed: int = 0
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).random((count, numbers_per_sample(augmentation)))


def test_none_changes_nothing() -> None:
    images = [image(8, 8, seed) for seed in range(3)]
    assert np.array_equal(augment(images, "none", 8, rows("none", 3)), np.stack(images))


@given(size=st.integers(1, 40), seed=st.integers(0, 1000))
def test_crop_flip_is_a_padded_crop_mirrored_or_not(size: int, seed: int) -> None:
    original, numbers = image(size, size, seed), rows("crop_flip", 1, seed)
    found = augment([original], "crop_flip", size, numbers)[0]
    margin = size // 8
    padded = np.pad(original, ((margin, margin), (margin, margin), (0, 0)))
    top, left = (int(number * (2 * margin + 1)) for number in numbers[0, :2])
    expected = padded[top : top + size, left : left + size]
    assert np.array_equal(found, expected[:, ::-1] if numbers[0, 2] < 0.5 else expected)


def test_crop_flip_reaches_every_offset_and_both_directions() -> None:
    original = image(16, 16)
    crops = augment([original] * 2000, "crop_flip", 16, rows("crop_flip", 2000))
    assert len(np.unique(crops.reshape(2000, -1), axis=0)) == 5 * 5 * 2


@given(
    width=st.integers(1, 60), height=st.integers(1, 60), size=st.integers(1, 32), seed=st.integers(0, 1000)
)
def test_resized_crop_takes_any_shape(width: int, height: int, size: int, seed: int) -> None:
    crops = augment([image(height, width)], "resized_crop_flip", size, rows("resized_crop_flip", 1, seed))
    assert crops.shape == (1, size, size, 3)
    assert crops.dtype == np.uint8


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
