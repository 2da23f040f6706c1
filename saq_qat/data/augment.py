"""Training augmentation: each sample's random numbers are given, so the result is a pure function of them."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saq_qat.data.transforms import Pixels

__all__ = ["Augmentation", "augment", "numbers_per_sample"]

Augmentation = Literal["none", "crop_flip", "resized_crop_flip"]

_ATTEMPTS = 10
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_NUMBERS: dict[Augmentation, int] = {"none": 0, "crop_flip": 3, "resized_crop_flip": 3 + 2 * _ATTEMPTS}


def numbers_per_sample(augmentation: Augmentation) -> int:
    """How many uniform numbers `augment` takes for one image."""
    return _NUMBERS[augmentation]


def augment(
    images: Sequence[Pixels], augmentation: Augmentation, image_size: int, numbers: NDArray[np.float64]
) -> Pixels:
    """Augment a batch of images.

    images: uint8 [H, W, 3] each; squares of side `image_size` unless `augmentation` is resized_crop_flip.
    numbers: float64 [N, numbers_per_sample(augmentation)], uniform in [0, 1).
    Returns uint8 [N, image_size, image_size, 3].
    """
    if augmentation == "none":
        return np.stack(images)
    if augmentation == "crop_flip":
        return _crop_flip(images, image_size, numbers)
    return np.stack(
        [_resized_crop_flip(image, image_size, row) for image, row in zip(images, numbers, strict=True)]
    )


def _crop_flip(images: Sequence[Pixels], size: int, numbers: NDArray[np.float64]) -> Pixels:
    """Pad by an eighth with black, crop a square of the old size anywhere, mirror every second one."""
    margin = size // 8
    offsets = (numbers[:, :2] * (2 * margin + 1)).astype(int).tolist()
    mirrored = (numbers[:, 2] < 0.5).tolist()
    padded = np.zeros((size + 2 * margin, size + 2 * margin, 3), np.uint8)
    inside = padded[margin : margin + size, margin : margin + size]
    crops = np.empty((len(images), size, size, 3), np.uint8)
    for crop, image, (top, left), mirror in zip(crops, images, offsets, mirrored, strict=True):
        inside[:] = image
        crop[:] = padded[top : top + size, left : left + size][:, :: -1 if mirror else 1]
    return crops


def _resized_crop_flip(pixels: Pixels, size: int, numbers: NDArray[np.float64]) -> Pixels:
    """ImageNet's: a crop of 8 to 100 % of the area and of aspect 3:4 to 4:3, resized, mirrored half the time.

    As torchvision's RandomResizedCrop: ten attempts at a crop that fits, then the largest central one of
    legal aspect.
    """
    height, width = pixels.shape[:2]
    crop_width, crop_height = _crop_size(width, height, numbers[3:])
    left = int(numbers[0] * (width - crop_width + 1))
    top = int(numbers[1] * (height - crop_height + 1))
    image = Image.fromarray(pixels).resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + crop_width, top + crop_height)
    )
    return np.asarray(image)[:, :: -1 if numbers[2] < 0.5 else 1]


def _crop_size(width: int, height: int, numbers: NDArray[np.float64]) -> tuple[int, int]:
    """Width and height of the crop, in pixels; `numbers` are the attempts' pairs (area, aspect)."""
    area, position = numbers[0::2], numbers[1::2]
    areas = width * height * (_AREA[0] + area * (_AREA[1] - _AREA[0]))
    aspects = np.exp(math.log(_ASPECT[0]) + position * (math.log(_ASPECT[1]) - math.log(_ASPECT[0])))
    widths, heights = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))
    legal = np.flatnonzero((widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height))
    if len(legal):
        return int(widths[legal[0]]), int(heights[legal[0]])
    return min(width, round(height * _ASPECT[1])), min(height, round(width / _ASPECT[0]))
