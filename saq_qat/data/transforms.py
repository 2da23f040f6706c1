"""Evaluation preprocessing for training: the runtime's own, with errors that name the file, and as tensors.

What an image may be and how it is prepared stands in `saq_qat_runtime.preprocess` alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saq_qat.data.noting import note_image
from saq_qat.errors import DataError
from saq_qat_runtime import preprocess
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.preprocess import Pixels, fit

__all__ = [
    "Box",
    "ChooseBox",
    "EncodedImage",
    "ImageFile",
    "Pixels",
    "fit",
    "network_input",
    "read_crop",
    "read_square",
    "read_whole",
    "resized_crop",
]

Box: TypeAlias = tuple[int, int, int, int]
"""Left, upper, right and lower edge of a rectangle, in pixels."""

ChooseBox: TypeAlias = Callable[[int, int], Box]
"""A rectangle for an image of that width and height."""


@dataclass(frozen=True)
class EncodedImage:
    """The content of an image file that lies in memory; ``name`` is what messages call it."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


ImageFile: TypeAlias = Path | EncodedImage

# EXIF orientations from here on change width for height.
_ON_ITS_SIDE = 5


def read_square(path: ImageFile, image_size: int, resize: int | None) -> Pixels:
    """An image file as evaluation sees it: uint8 [image_size, image_size, 3].

    Raises DataError, naming the file, for anything that the runtime refuses too.
    """
    with _naming(path):
        return fit(preprocess.open_upright(_file(path)), image_size, resize)


def read_whole(path: ImageFile) -> Pixels:
    """An image file upright at its own size, uint8 [H, W, 3]; raises as `read_square`."""
    with _naming(path):
        return np.asarray(preprocess.open_upright(_file(path)))


def read_crop(path: ImageFile, image_size: int, choose: ChooseBox) -> Pixels:
    """A rectangle of an image file, resized: uint8 [image_size, image_size, 3]; raises as `read_square`.

    Where the rectangle is several times as large as the square, a JPEG is decoded at half, a quarter or an
    eighth of its size, with two pixels or more left for each one of the square, so that the resampling
    filter still averages what it should: on photographs numbers differ by half a level of 255 in the mean.
    """
    with _naming(path):
        image = preprocess.open_undecoded(_file(path))
        orientation = preprocess.orientation(image)
        # Pillow turns a TIFF while it decodes it, and says its size as it will be.
        turns = orientation >= _ON_ITS_SIDE and image.format != "TIFF"
        box = choose(*(image.size[::-1] if turns else image.size))
        left, upper, right, lower = box
        spare = min(right - left, lower - upper) // (2 * image_size)
        factor = _reduced(image, spare, is_upright=orientation == 1)
        return resized_crop(preprocess.upright(image), image_size, tuple(edge / factor for edge in box))


def _reduced(image: Image.Image, most: int, *, is_upright: bool) -> float:
    """Let `image` be decoded at up to 1 / most of its size, where its format can; the factor that it gets.

    An image that is yet to be turned must have a size that divides by it: the last pixel stands for less than
    the others otherwise, and becomes the first.
    """
    width, height = image.size
    factors = [f for f in (8, 4, 2) if f <= most and (is_upright or width % f == height % f == 0)]
    if not factors:
        return 1.0
    drafted = image.draft(image.mode, (width // factors[0], height // factors[0]))
    return 1.0 if drafted is None else width / drafted[1][2]


def resized_crop(image: Image.Image, image_size: int, box: tuple[float, ...]) -> Pixels:
    """The rectangle left, upper, right, lower of an image: uint8 [image_size, image_size, 3]."""
    left, upper, right, lower = box
    size = (image_size, image_size)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=(left, upper, right, lower)))


def _file(path: ImageFile) -> Path | bytes:
    return path.content if isinstance(path, EncodedImage) else path


@contextmanager
def _naming(path: ImageFile) -> Iterator[None]:
    note_image(str(path))
    try:
        yield
    except InputError as error:
        raise DataError(f"'{path}' is refused. {error} Or remove the file.") from error


def network_input(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(pixels / 255 - mean) / std in float32 and this order: uint8 [N, H, W, C] -> float32 [N, C, H, W].

    Images of `saq_qat.data.given` are float32 already and only change their layout.

    The same bits on every device as the runtime's own: divisors are tensors there, because kernels of a GPU
    would multiply by the reciprocal of a number.
    """
    if pixels.dtype == torch.float32:  # what a program has made the network's input itself
        return pixels.permute(0, 3, 1, 2).contiguous()
    device = pixels.device
    mean, std = (
        torch.tensor(n, device=device).view(-1, 1, 1) for n in (preprocessing.mean, preprocessing.std)
    )
    planes = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.div_(torch.tensor([255.0], device=device)).sub_(mean).div_(std)
