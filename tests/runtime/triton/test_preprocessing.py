"""A client that knows preprocessing.json alone sends the bits that the session computes from."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.bundle.records import Preprocessing, TensorSpec
from saq_qat_runtime.preprocess import preprocess
from saq_qat_runtime.triton.preprocessing import client_steps
from saq_qat_runtime.triton.repository import write_triton

SIDE = 24
SETTINGS = {
    "resized and cropped": Preprocessing(SIDE, 29, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "straight to the square": Preprocessing(SIDE, None, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)),
    "grey": Preprocessing(SIDE, 25, 1, (0.1307,), (0.3081,)),
}


def client(told: dict[str, Any], content: bytes) -> NDArray[np.float32]:
    """Written against the file, without a word of the runtime."""
    decode, resize, crop, scale, normalise = told["steps"]
    assert (decode["exif_orientation"], decode["transparency"]) == ("applied", "dropped")
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content), formats=decode["formats"]))
    image = image.convert("RGBA").convert("RGB") if "transparency" in image.info else image
    image = image.convert(decode["channel_order"])
    pixels = resize["pixels"]
    size = (pixels, pixels)
    if resize["sides"] == "short":
        assert resize["long_side"] == "pixels * long // short, in whole numbers"
        short = min(image.size)
        size = (pixels * image.width // short, pixels * image.height // short)
    assert (resize["interpolation"], resize["antialias"]) == ("bilinear", True)
    image = image.resize(size, Image.Resampling.BILINEAR)
    assert crop["where"] == "centre" and crop["left_and_upper_edge"].endswith("rounded half to even")
    left, upper = (
        round((a - b) / 2) for a, b in zip(image.size, (crop["width"], crop["height"]), strict=True)
    )
    image = image.crop((left, upper, left + crop["width"], upper + crop["height"]))
    values = np.asarray(image).reshape(crop["height"], crop["width"], -1).astype(scale["dtype"])
    values = values / np.float32(scale["divide_by"])
    assert normalise["formula"] == "(value - mean) / std"
    values = (values - np.array(normalise["mean"], "f4")) / np.array(normalise["std"], "f4")
    assert told["input"]["layout"] == "NCHW"
    sent: NDArray[np.float32] = values.transpose(2, 0, 1)[np.newaxis].astype(told["input"]["dtype"])
    return sent


def files() -> dict[str, bytes]:
    """Wide, tall, turned by its tag, with a palette and transparency, and of the square's size."""
    generator = np.random.default_rng(5)
    made: dict[str, bytes] = {}

    def save(name: str, image: Image.Image, kind: str, **settings: Any) -> None:
        stream = io.BytesIO()
        image.save(stream, kind, **settings)
        made[name] = stream.getvalue()

    def noise(*shape: int) -> Image.Image:
        return Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))

    turned = Image.Exif()
    turned[0x0112] = 6
    save("wide.jpg", noise(37, 80, 3), "JPEG")
    save("turned.jpg", noise(31, 64, 3), "JPEG", exif=turned)
    save("tall.png", noise(75, 40, 4), "PNG")
    save("palette.png", noise(33, 50).convert("P"), "PNG", transparency=3)
    save("square.png", noise(SIDE, SIDE, 3), "PNG")
    return made


@pytest.mark.parametrize("name", SETTINGS)
def test_who_follows_the_steps_sends_the_bits_of_the_session(name: str) -> None:
    settings = SETTINGS[name]
    tensor = TensorSpec("image", "float32", ("N", settings.channels, SIDE, SIDE))
    told = json.loads(json.dumps(client_steps(settings, tensor)))
    for file, content in files().items():
        found, expected = client(told, content), preprocess(content, settings)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32), err_msg=file)


def test_the_steps_stand_beside_the_model(bundle: Path, tmp_path: Path) -> None:
    write_triton(bundle, tmp_path)
    told = json.loads((tmp_path / "tiny" / "preprocessing.json").read_text())
    manifest = Manifest.load(bundle)
    assert told["input"]["name"] == manifest.inputs[0].name
    assert told["input"]["shape"] == list(manifest.inputs[0].shape)
    for content in files().values():
        np.testing.assert_array_equal(client(told, content), preprocess(content, manifest.preprocessing))
