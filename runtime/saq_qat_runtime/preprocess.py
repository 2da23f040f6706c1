"""From an image to the network's input, as in evaluation: same resampling, crop and float32 operations."""

import io
import struct
import zlib
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import BackendUnavailable, InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FORMATS", "PIXEL_LIMIT", "ImageLike", "centre_crop", "preprocess", "resized_size"]

PIXEL_LIMIT = 50_000_000
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
ImageLike: TypeAlias = "str | PathLike[str] | bytes | NDArray[np.uint8] | Image"

_MODES = {1: "L", 3: "RGB"}
_DEEP_MODES = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")
# What pillow raises for damaged files, beyond OSError.
_DECODING_ERRORS = (
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def preprocess(image: ImageLike, settings: Preprocessing) -> NDArray[np.float32]:
    """One image as float32 array (1, channels, image_size, image_size), normalised.

    image: a path, the bytes of a file, a PIL image, or a uint8 array (height, width, 1 or 3).
    Raises InputError for anything that is not an 8-bit image of at most PIXEL_LIMIT pixels.
    """
    side = settings.image_size
    if isinstance(image, np.ndarray):
        pixels = _checked_array(image)
        if settings.resize is None and pixels.shape == (side, side, settings.channels):
            return _normalised(pixels, settings)
        pil = _import_pil().fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    else:
        pil = _opened(image)
    pil = _upright(pil, _MODES[settings.channels])
    return _normalised(np.asarray(_fitted(pil, settings)).reshape(side, side, settings.channels), settings)


def resized_size(width: int, height: int, resize: int) -> tuple[int, int]:
    """Width and height whose short side is `resize`; the long side is cut to whole pixels."""
    if width <= height:
        return resize, resize * height // width
    return resize * width // height, resize


def centre_crop(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of the centred square; halves are rounded to even."""
    left, upper = round((width - side) / 2.0), round((height - side) / 2.0)
    return left, upper, left + side, upper + side


def _normalised(pixels: NDArray[np.uint8], settings: Preprocessing) -> NDArray[np.float32]:
    mean, deviation = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
    scaled = pixels.astype(np.float32) / np.float32(255)
    values = (scaled - mean) / deviation
    return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis])


def _fitted(image: "Image", settings: Preprocessing) -> "Image":
    bilinear, side = _import_pil().Resampling.BILINEAR, settings.image_size
    if settings.resize is None:
        return image if image.size == (side, side) else image.resize((side, side), bilinear)
    size = resized_size(*image.size, settings.resize)
    _check_pixels(*size, "after resizing its short side")
    resized = image if size == image.size else image.resize(size, bilinear)
    return resized.crop(centre_crop(*size, side))


def _opened(image: Any) -> "Image":
    """A PIL image whose pixel count was checked before its pixels are decoded."""
    pil = _import_pil()
    opened: Image
    if isinstance(image, pil.Image):
        opened = image
        return opened
    if not isinstance(image, (bytes, bytearray, str, PathLike)):
        kinds = "a path, bytes, a PIL image or a uint8 array (height, width, 3)"
        raise InputError(f"An image must be {kinds}, got {type(image).__name__}.")
    try:
        content = image if isinstance(image, (bytes, bytearray)) else Path(image).read_bytes()
        opened = pil.open(io.BytesIO(content), formats=FORMATS)
    except (pil.DecompressionBombError, pil.DecompressionBombWarning) as error:
        raise InputError(f"The image is too large: {error} Send a smaller one.") from error
    except _DECODING_ERRORS as error:
        raise InputError(f"Not a readable image ({', '.join(FORMATS)}): {error}.") from error
    return opened


def _upright(image: "Image", mode: str) -> "Image":
    """Turned as its EXIF tag says, in the colour mode of the network; transparency is dropped."""
    from PIL import ImageOps

    _check_pixels(*image.size, "as sent")
    if image.mode in _DEEP_MODES:
        raise InputError(
            f"The image has more than 8 bits per channel (mode {image.mode}). Convert it to 8 bits."
        )
    try:
        turned = ImageOps.exif_transpose(image)
        with_alpha = turned.convert("RGBA") if "transparency" in turned.info else turned
        return with_alpha.convert(mode)
    except _DECODING_ERRORS as error:
        raise InputError(f"The image cannot be decoded: {error}. The file may be cut short.") from error


def _checked_array(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        found = f"{pixels.dtype} {pixels.shape}"
        rule = "An image array must be uint8 (height, width, 1 or 3)"
        raise InputError(f"{rule}, got {found}. Normalised float arrays go to run(), not to predict().")
    _check_pixels(pixels.shape[1], pixels.shape[0], "as sent")
    return np.ascontiguousarray(pixels)


def _check_pixels(width: int, height: int, when: str) -> None:
    if width * height > PIXEL_LIMIT or 0 in (width, height):
        raise InputError(
            f"The image has {width} x {height} pixels {when}; from 1 to {PIXEL_LIMIT:,} are allowed."
        )


def _import_pil() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        hint = "Install it: pip install pillow"
        raise BackendUnavailable(f"Images need pillow, which cannot be imported: {error}. {hint}") from error
    return Image
