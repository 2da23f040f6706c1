"""Training augmentation: each sample's random numbers are given, so the result is a pure function of them."""

import math
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from saq_qat.data.images import Images
from saq_qat.data.transforms import Box, Pixels

__all__ = [
    "Augmentation",
    "augmented",
    "crop_flip",
    "crop_flip_in_torch",
    "cropped_box",
    "numbers_per_sample",
]

Augmentation = Literal["none", "crop_flip", "resized_crop_flip"]

_ATTEMPTS = 10
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_NUMBERS: dict[Augmentation, int] = {"none": 0, "crop_flip": 3, "resized_crop_flip": 3 + 2 * _ATTEMPTS}
# NumPy copies a pixel at once, rather than its three bytes.
_PIXEL = np.dtype("V3")


def numbers_per_sample(augmentation: Augmentation) -> int:
    """How many uniform numbers `augmented` takes for one image."""
    return _NUMBERS[augmentation]


def augmented(
    images: Images,
    indices: NDArray[np.int64],
    augmentation: Augmentation,
    image_size: int,
    numbers: NDArray[np.float64],
) -> Pixels:
    """The images of a batch, augmented.

    images: squares of side `image_size` unless `augmentation` is resized_crop_flip.
    numbers: float64 [N, numbers_per_sample(augmentation)], uniform in [0, 1).
    Returns uint8 [N, image_size, image_size, 3]; raises DataError if a file is damaged.
    """
    if augmentation == "none":
        return images.read_batch(indices)
    if augmentation == "crop_flip":
        return crop_flip(images.read_batch(indices), numbers)
    crops = np.empty((len(indices), image_size, image_size, 3), np.uint8)
    for crop, index, row in zip(crops, indices.tolist(), numbers.tolist(), strict=True):
        pixels = images.read_crop(index, image_size, partial(cropped_box, row))
        crop[:] = pixels[:, :: -1 if row[2] < 0.5 else 1]
    return crops


def crop_flip(squares: Pixels, numbers: NDArray[np.float64]) -> Pixels:
    """Pad by an eighth with black, crop a square of the old size anywhere, mirror every second one.

    squares: uint8 [N, S, S, 3]; numbers: float64 [N, 3]. Returns uint8 [N, S, S, 3].
    """
    count, size = squares.shape[:2]
    margin = size // 8
    offsets, mirrored = _offsets(size, numbers)
    padded = np.zeros((count, size + 2 * margin, size + 2 * margin, 3), np.uint8)
    padded[:, margin : margin + size, margin : margin + size] = squares
    windows = sliding_window_view(padded.view(_PIXEL)[..., 0], (size, size), axis=(1, 2))
    crops = windows[np.arange(count), offsets[:, 0], offsets[:, 1]]
    crops[mirrored] = crops[mirrored][:, :, ::-1]
    return crops.view(np.uint8).reshape(squares.shape)


def crop_flip_in_torch(squares: Tensor, numbers: NDArray[np.float64]) -> Tensor:
    """The same pixels as `crop_flip`, of squares on any device and computed there."""
    count, size = squares.shape[:2]
    margin, device = size // 8, squares.device
    offsets, mirrored = (torch.from_numpy(part).to(device) for part in _offsets(size, numbers))
    steps, which = torch.arange(size, device=device), torch.arange(count, device=device)
    rows = offsets[:, :1] + steps
    columns = offsets[:, 1:] + torch.where(mirrored[:, None], steps.flip(0), steps)
    padded = F.pad(squares, (0, 0, margin, margin, margin, margin))
    return padded[which[:, None, None], rows[:, :, None], columns[:, None, :]]


def _offsets(size: int, numbers: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Top and left of each crop in the padded square, [N, 2], and whether it is mirrored, [N]."""
    places = 2 * (size // 8) + 1
    return (numbers[:, :2] * places).astype(np.int64), numbers[:, 2] < 0.5


def cropped_box(numbers: list[float], width: int, height: int) -> Box:
    """ImageNet's: a rectangle of 8 to 100 % of the area and of aspect 3:4 to 4:3.

    As torchvision's RandomResizedCrop: ten attempts at a rectangle that fits, then the largest central one of
    legal aspect. `numbers` are those of one image: place, mirroring and the attempts' pairs (area, aspect).
    """
    for share, position in zip(numbers[3::2], numbers[4::2], strict=True):
        area = width * height * (_AREA[0] + share * (_AREA[1] - _AREA[0]))
        aspect = math.exp(math.log(_ASPECT[0]) + position * (math.log(_ASPECT[1]) - math.log(_ASPECT[0])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 1 <= wide <= width and 1 <= high <= height:
            left, upper = int(numbers[0] * (width - wide + 1)), int(numbers[1] * (height - high + 1))
            return left, upper, left + wide, upper + high
    wide, high = min(width, round(height * _ASPECT[1])), min(height, round(width / _ASPECT[0]))
    left, upper = (width - wide) // 2, (height - high) // 2
    return left, upper, left + wide, upper + high
