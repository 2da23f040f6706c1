"""How images are prepared: any settings, any array, path or bytes: pixels or a typed refusal."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from saq_qat_runtime.bundle.decode import decode
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import InputError, ModelError
from saq_qat_runtime.preprocess import preprocess
from tests.fuzz.mutate import ODD_NUMBERS, ODD_VALUES, damaged_tree
from tests.fuzz.surface import Case, Surface

__all__ = ["SURFACE"]


def _settings(random: Random) -> Any:
    channels = random.choice((1, 3))
    side = random.choice((1, 2, 7, 8, 31))
    plain = {
        "image_size": side,
        "resize": random.choice((None, side, side + 1, 3 * side)),
        "channels": channels,
        "mean": [random.uniform(-1, 2) for _ in range(channels)],
        "std": [random.choice((0.25, 1e-3, 1e-6, 1e6, 1e-40)) for _ in range(channels)],
    }
    return damaged_tree(random, plain) if random.random() < 0.5 else plain


def _image(random: Random) -> Any:
    height, width = (random.choice((0, 1, 2, 9, 99, 250)) for _ in range(2))
    if random.random() < 0.6:
        kind = random.choice(("u1", "u1", "u1", "f4", "i8", "?", ">u2", "O", "U1"))
        shape = random.choice(
            ((height, width, 3), (height, width, 1), (height, width), (3, height, width, 3), ())
        )
        array = np.zeros(shape, kind)
        return array[::-1, ::2] if array.ndim > 1 and random.random() < 0.3 else array
    if random.random() < 0.5:
        mode = random.choice(
            ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I", "F", "I;16", "HSV", "LAB", "YCbCr", "RGBa")
        )
        return Image.new(mode, (width, height))
    return random.choice(
        (*ODD_VALUES, *ODD_NUMBERS, b"", bytearray(b"x"), memoryview(b"x"), io.BytesIO(), Path("/dev/zero"))
    )


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    def case(random: Random) -> str:
        plain, image = _settings(random), _image(random)
        (folder / "input.txt").write_text(ascii((plain, image)))
        try:
            settings = decode(Preprocessing, plain, "preprocessing")
        except ModelError:
            return "settings refused"
        try:
            pixels = preprocess(image, settings)
        except InputError as error:
            assert str(error).strip()
            return "image refused"
        side = settings.image_size
        assert pixels.dtype == np.float32 and pixels.shape == (1, settings.channels, side, side)
        return "prepared"

    yield case


SURFACE = Surface("preprocessing", _opened, mebibytes=1600)
