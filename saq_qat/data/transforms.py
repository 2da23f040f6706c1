"""From an image file to the network's input: the evaluation preprocessing, as pure functions.

The runtime repeats these steps with Pillow and NumPy alone; both must agree in every bit.
Pixels are uint8 [height, width, 3] (RGB) until `normalise`.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from saq_qat.errors import DataError

__all__ = [
    "FORMATS",
    "PIXEL_LIMIT",
    "Pixels",
    "Preprocessing",
    "centre_crop",
    "decode",
    "fit",
    "normalise",
    "resize_short_side",
    "to_rgb",
]

Pixels = NDArray[np.uint8]

# What Pillow raises on damaged files, beyond OSError.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
)
# The formats and sizes that the runtime accepts too; others could start external programs or fill memory.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
PIXEL_LIMIT = 50_000_000
# A thin strip is small on disk and huge once its short side is scaled up.
_LONGEST_ASPECT = 100
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Preprocessing:
    """Evaluation preprocessing in plain values, as the manifest of a bundle records it.

    `image_size` is the side of the square input, in pixels. `resize` is the short side before the centre
    crop; None resizes straight to the square where sizes differ. `mean` and `std` are per channel, of
    pixels in 0..1.
    """

    image_size: int
    resize: int | None
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def decode(path: Path) -> Image.Image:
    """Read an image file as RGB, upright.

    Raises DataError, naming the file, if it is unreadable, damaged, a decompression bomb or deeper than 8
    bits.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _require_reasonable(image.width, image.height)
            return to_rgb(image)
    except _BOMB as error:
        raise DataError(
            f"'{path}' would fill memory: {error}. Remove it, crop it or scale it down."
        ) from error
    except _DAMAGED as error:
        raise DataError(
            f"'{path}' is not a readable image: {type(error).__name__}: {error}. Remove it or copy it again."
        ) from error


def _require_reasonable(width: int, height: int) -> None:
    if width * height > PIXEL_LIMIT:
        raise Image.DecompressionBombError(f"{width} x {height} pixels; {PIXEL_LIMIT:,} are allowed")
    if max(width, height) > _LONGEST_ASPECT * min(width, height):
        raise Image.DecompressionBombError(f"{width} x {height} pixels, longer than {_LONGEST_ASPECT}:1")


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn by the EXIF orientation and convert to 8-bit RGB; transparency is dropped, not blended.

    Raises DataError for 16- and 32-bit greyscale, which Pillow would clip to 255 instead of scaling.
    """
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"Images must have 8 bits per channel; {getattr(image, 'filename', 'this one')!r} has 16 or 32 "
            f"(Pillow mode '{image.mode}'), which would be clipped to white. Convert it to 8 bits first."
        )
    upright = ImageOps.exif_transpose(image)
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return upright.convert("RGB")


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    """Scale (bilinear, antialiased) so that the short side is `size`; the long one is rounded down."""
    width, height = image.size
    if min(width, height) == size:
        return image
    scaled = (size, size * height // width) if width <= height else (size * width // height, size)
    return image.resize(scaled, Image.Resampling.BILINEAR)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle square of side `size`; half a pixel is rounded to even, as torchvision does."""
    left = round((image.width - size) / 2)
    top = round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def fit(image: Image.Image, image_size: int, resize: int | None) -> Pixels:
    """The network's square: short side to `resize` and centre crop, or straight to the square if None.

    Returns uint8 [image_size, image_size, 3].
    """
    if resize is not None:
        image = centre_crop(resize_short_side(image, resize), image_size)
    elif image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def normalise(pixels: Pixels, preprocessing: Preprocessing) -> Tensor:
    """(pixels / 255 - mean) / std in float32 and this order: uint8 [N, H, W, C] -> float32 [N, C, H, W]."""
    planes = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    mean = torch.tensor(preprocessing.mean, dtype=torch.float32).view(1, -1, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=torch.float32).view(1, -1, 1, 1)
    return planes.to(torch.float32).div_(255).sub_(mean).div_(std)
