"""From an image to the network's input, for training, evaluation and serving alike: NumPy and Pillow alone.

What an image may be, wherever it comes from:

- BMP, GIF, JPEG, PNG, PPM, TIFF or WebP with 8 bits per channel. A 16-bit colour PNG counts, as Pillow reads
  the high byte of each channel; 16- and 32-bit greyscale is refused, because Pillow would clip it to white.
  Of several pictures in one file, the first.
- Upright as its EXIF orientation says. Transparency is dropped, not blended. Greyscale, palettes and CMYK
  become RGB (or one channel for a network of one).
- 1 to `PIXEL_LIMIT` pixels, and no more than `LONGEST_ASPECT` times as long as wide: a thin strip is small
  on disk and huge once its short side is scaled up. One pixel is enough.
- A file is a regular one, of `LARGEST_IMAGE` bytes at most: a pipe or a device would be waited for. Its
  header is read in `HEADER_READS` reads or fewer.

Anything else raises InputError, before its pixels are decoded where the header tells.
"""

import struct
import zlib
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bounded_reads import BoundedReads
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.bundle.regular_file import read_regular
from saq_qat_runtime.checks import check_path
from saq_qat_runtime.errors import BackendUnavailable, InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "FORMATS",
    "LARGEST_IMAGE",
    "LONGEST_ASPECT",
    "PIXEL_LIMIT",
    "ImageLike",
    "Pixels",
    "centre_crop",
    "fit",
    "normalise",
    "open_undecoded",
    "open_upright",
    "orientation",
    "preprocess",
    "resize_short_side",
    "resized_size",
    "upright",
]

Pixels: TypeAlias = NDArray[np.uint8]
ImageLike: TypeAlias = "str | PathLike[str] | bytes | NDArray[np.uint8] | Image"

PIXEL_LIMIT = 50_000_000
LARGEST_IMAGE = 1 << 29
LONGEST_ASPECT = 100
# Other formats could start external programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_MODES = {1: "L", 3: "RGB"}
# What Pillow raises for damaged files, beyond OSError.
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
    Raises InputError for anything that is not an image as the head of this module describes it.
    """
    if not isinstance(settings, Preprocessing):
        raise InputError(
            f"settings must be a Preprocessing, as of a manifest, got {type(settings).__name__}."
        )
    side, channels = settings.image_size, settings.channels
    if isinstance(image, np.ndarray):
        pixels = _checked_array(image)
        if settings.resize is None and pixels.shape == (side, side, channels):
            return normalise(pixels[np.newaxis], settings)
        pil = _import_pil().fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        turned = upright(pil, channels)
    else:
        turned = open_upright(image, channels)
    square = fit(turned, side, settings.resize)
    return normalise(square.reshape(1, side, side, channels), settings)


def open_upright(image: Any, channels: int = 3) -> "Image":
    """A path, the bytes of a file or a PIL image, decoded and upright in 8-bit RGB (or "L" for one channel).

    Raises InputError for anything else, and as `upright` does.
    """
    return upright(open_undecoded(image), channels)


def open_undecoded(image: Any, *, reads: int | None = None) -> "Image":
    """A path, the bytes of a file or a PIL image, of a size that is allowed; its pixels are not decoded yet.

    reads: how often the file may be read to decode them, None for any number; see `BoundedReads`.
    Raises InputError for anything else.
    """
    pil = _import_pil()
    if isinstance(image, pil.Image):
        given: Image = image
        _check_size(*given.size)
        return given
    if not isinstance(image, (bytes, bytearray, str, PathLike)):
        kinds = "a path, bytes, a PIL image or a uint8 array (height, width, 3)"
        raise InputError(f"An image must be {kinds}, got {type(image).__name__}.")
    content = image if isinstance(image, (bytes, bytearray)) else _content_of(check_path("image", image))
    try:
        file = BoundedReads(content)
        opened: Image = pil.open(file, formats=FORMATS)
        file.allow(reads)
    except (pil.DecompressionBombError, pil.DecompressionBombWarning) as error:
        raise InputError(f"The image is too large: {error} Send a smaller one.") from error
    except pil.UnidentifiedImageError as error:  # its own message names a buffer by its address
        raise InputError(f"Not a readable image: it is no {', '.join(FORMATS)} file, or damaged.") from error
    except (UserWarning, *_DECODING_ERRORS) as error:  # a warning where the process makes them errors
        raise InputError(f"Not a readable image ({', '.join(FORMATS)}): {error}. Copy it again.") from error
    _check_size(*opened.size)
    return opened


def _content_of(path: Path) -> bytes:
    try:
        return read_regular(path, LARGEST_IMAGE)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such image. Name a file that is there.") from error
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{path}: the image cannot be read: {why}. Name a file that can.") from error


def upright(image: "Image", channels: int = 3) -> "Image":
    """Turned as its EXIF tag says, in the colour mode of the network; transparency is dropped.

    Raises InputError for a size or depth that is refused, before decoding, and for pixels that are damaged.
    """
    from PIL import ImageOps

    _check_size(*image.size)
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"The image has more than 8 bits per channel (Pillow mode {image.mode}) and would be clipped to "
            "white. Convert it to 8 bits."
        )
    try:
        turned = ImageOps.exif_transpose(image)
        with_alpha = turned.convert("RGBA") if "transparency" in turned.info else turned
        return with_alpha.convert(_MODES[channels])
    except _DECODING_ERRORS as error:
        raise InputError(f"The image cannot be decoded: {error}. The file may be cut short.") from error


def orientation(image: "Image") -> int:
    """The EXIF tag by which `upright` turns an image: 1 for none, 2 to 8; InputError if it is damaged."""
    try:
        tag: int = image.getexif().get(0x0112, 1)
    except _DECODING_ERRORS as error:
        raise InputError(f"The image cannot be decoded: {error}. The file may be cut short.") from error
    return tag if tag in range(2, 9) else 1


def resized_size(width: int, height: int, resize: int) -> tuple[int, int]:
    """Width and height whose short side is `resize`; the long side is cut to whole pixels."""
    if width <= height:
        return resize, resize * height // width
    return resize * width // height, resize


def resize_short_side(image: "Image", size: int) -> "Image":
    """Scaled (bilinear, antialiased) so that the short side is `size`; InputError beyond PIXEL_LIMIT."""
    scaled = resized_size(*image.size, size)
    _check_pixels(*scaled, "after resizing its short side")
    return image if scaled == image.size else image.resize(scaled, _import_pil().Resampling.BILINEAR)


def centre_crop(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of the centred square; halves are rounded to even."""
    left, upper = round((width - side) / 2.0), round((height - side) / 2.0)
    return left, upper, left + side, upper + side


def fit(image: "Image", image_size: int, resize: int | None) -> Pixels:
    """The network's square: short side to `resize` and centre crop, or straight to the square if None.

    Returns uint8 (image_size, image_size, 3), without the last axis for an image of mode "L".
    """
    if resize is not None:
        scaled = resize_short_side(image, resize)
        image = scaled.crop(centre_crop(*scaled.size, image_size))
    elif image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), _import_pil().Resampling.BILINEAR)
    return np.asarray(image)


def normalise(pixels: Pixels, settings: Preprocessing) -> NDArray[np.float32]:
    """(pixels / 255 - mean) / std in float32 and this order: uint8 (N, H, W, C) -> float32 (N, C, H, W)."""
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
    planes /= np.float32(255)
    planes -= np.array(settings.mean, np.float32).reshape(-1, 1, 1)
    planes /= np.array(settings.std, np.float32).reshape(-1, 1, 1)
    return planes


def _checked_array(pixels: NDArray[Any]) -> Pixels:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        found = f"{pixels.dtype} {pixels.shape}"
        rule = "An image array must be uint8 (height, width, 1 or 3)"
        raise InputError(f"{rule}, got {found}. Normalised float arrays go to run(), not to predict().")
    _check_size(pixels.shape[1], pixels.shape[0])
    return np.ascontiguousarray(pixels)


def _check_size(width: int, height: int) -> None:
    _check_pixels(width, height, "as given")
    if max(width, height) > LONGEST_ASPECT * min(width, height):
        raise InputError(f"The image has {width} x {height} pixels, longer than {LONGEST_ASPECT}:1. Crop it.")


def _check_pixels(width: int, height: int, when: str) -> None:
    if width * height > PIXEL_LIMIT or 0 in (width, height):
        raise InputError(
            f"The image has {width} x {height} pixels {when}; from 1 to {PIXEL_LIMIT:,} are allowed. "
            "Scale it down."
        )


def _import_pil() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        hint = "Install it: pip install pillow"
        raise BackendUnavailable(f"Images need pillow, which cannot be imported: {error}. {hint}") from error
    return Image
