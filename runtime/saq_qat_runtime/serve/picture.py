"""From what a client posts to the network's input, for one picture."""

import base64
import binascii
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.preprocess import open_undecoded, preprocess
from saq_qat_runtime.serve.protocol import load_json

__all__ = ["decode_picture", "picture_of_json"]

_MEMBERS = {"image", "top_k"}


def decode_picture(content: bytes, settings: Preprocessing, pixels: int) -> NDArray[np.float32]:
    """The file of one picture as (1, channels, height, width), normalised.

    Raises InputError for what is no picture, and for one of more than `pixels`, before it is decoded.
    """
    if not content:
        raise InputError("The picture is empty. Send the bytes of an image file.")
    opened = open_undecoded(content)
    width, height = opened.size
    if width * height > pixels:
        rule = f"A picture may have {pixels:,} pixels here"
        raise InputError(f"{rule}, this one has {width} x {height}. Scale it down.")
    return preprocess(opened, settings)


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
