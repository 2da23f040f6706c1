"""From what a client posts to the network's input, for one picture."""

import base64
import binascii
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bounded_reads import HEADER_READS
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.preprocess import open_undecoded, preprocess
from saq_qat_runtime.serve.protocol import load_json

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["decode_picture", "picture_of_json"]

_MEMBERS = {"image", "top_k"}
_BYTES_A_READ = 64  # encoders write pieces of kilobytes
_SLOW_BYTES, _SLOW_PIXELS = 128 * 1024, 1_000_000


def decode_picture(content: bytes, settings: Preprocessing, pixels: int) -> NDArray[np.float32]:
    """The file of one picture as (1, channels, height, width), normalised.

    Raises InputError for what is no picture, and for one of more than `pixels`, before it is decoded.
    """
    if not content:
        raise InputError("The picture is empty. Send the bytes of an image file.")
    opened = open_undecoded(content, reads=HEADER_READS + len(content) // _BYTES_A_READ)
    width, height = opened.size
    if width * height > pixels:
        rule = f"A picture may have {pixels:,} pixels here"
        raise InputError(f"{rule}, this one has {width} x {height}. Scale it down.")
    _check_decoder(opened, len(content))
    return preprocess(opened, settings)


def _check_decoder(opened: "Image", size: int) -> None:
    """Raise InputError for a large picture that Pillow decodes in Python: it would take seconds."""
    from PIL.Image import DECODERS

    slow = any(tile[0] in DECODERS for tile in getattr(opened, "tile", ()))
    if slow and (size > _SLOW_BYTES or opened.width * opened.height > _SLOW_PIXELS):
        rule = f"{opened.format} as text, in runs, or of another depth than 8 bits"
        raise InputError(
            f"{rule} may have {_SLOW_BYTES:,} bytes and {_SLOW_PIXELS:,} pixels here, this one has {size:,} "
            f"and {opened.width} x {opened.height}. Send it as PNG or JPEG."
        )


def picture_of_json(body: bytes) -> tuple[bytes, int | None]:
    """The bytes of `image`, which is base64, and `top_k` if it is there; InputError for anything else."""
    request = load_json(body)
    unknown = sorted(set(request) - _MEMBERS)
    if unknown:
        raise InputError(f"The JSON may have {sorted(_MEMBERS)}, got {unknown[:5]} too. No address is read.")
    image: Any = request.get("image")
    if not isinstance(image, str):
        raise InputError("The JSON needs image: the bytes of an image file, in base64.")
    top_k = request.get("top_k")
    if top_k is not None and type(top_k) is not int:
        raise InputError("top_k must be a whole number.")
    try:
        return base64.b64decode(image, validate=True), top_k
    except (binascii.Error, ValueError) as error:
        raise InputError(f"image is not base64: {error}.") from error
