import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from saq_qat_runtime.bundle.manifest import Preprocessing
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.preprocess import LONGEST_ASPECT, PIXEL_LIMIT, centre_crop, preprocess, resized_size

SQUARE = Preprocessing(16, None, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
CROPPED = Preprocessing(16, 20, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
GREY = Preprocessing(16, None, 1, (0.5,), (0.2,))


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_normalises_in_float32_exactly() -> None:
    pixels = photo(16, 16)
    expected = np.empty((1, 3, 16, 16), np.float32)
    for channel, (mean, deviation) in enumerate(zip(SQUARE.mean, SQUARE.std, strict=True)):
        scaled = pixels[:, :, channel].astype(np.float32) / np.float32(255)
        expected[0, channel] = (scaled - np.float32(mean)) / np.float32(deviation)
    result = preprocess(pixels, SQUARE)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([SQUARE, CROPPED, GREY]))
def test_path_bytes_image_and_array_agree(height: int, width: int, settings: Preprocessing) -> None:
    pixels = photo(height, width)
    image = Image.fromarray(pixels)
    expected = preprocess(image, settings)
    assert expected.shape == (1, settings.channels, 16, 16)
    np.testing.assert_array_equal(preprocess(pixels, settings), expected)
    np.testing.assert_array_equal(preprocess(encoded(image, "PNG"), settings), expected)


def test_reads_files_by_path(tmp_path: Path) -> None:
    path = tmp_path / "naïve photo.png"
    Image.fromarray(photo(20, 30)).save(path)
    expected = preprocess(photo(20, 30), CROPPED)
    np.testing.assert_array_equal(preprocess(path, CROPPED), expected)
    np.testing.assert_array_equal(preprocess(str(path), CROPPED), expected)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 300))
def test_short_side_is_exact_and_the_crop_lies_inside(width: int, height: int, resize: int) -> None:
    size = resized_size(width, height, resize)
    assert min(size) == resize
    assert max(size) == int(resize * max(width, height) / min(width, height))
    left, upper, right, lower = centre_crop(*size, resize)
    assert left >= 0 and upper >= 0 and right <= size[0] and lower <= size[1]
    assert right - left == lower - upper == resize


def test_halves_of_a_pixel_round_to_even() -> None:
    assert centre_crop(21, 23, 16) == (2, 4, 18, 20)


def test_agrees_with_torchvision() -> None:
    # The reference; where only the runtime is installed, it lacks it.
    transforms = pytest.importorskip("torchvision.transforms.functional")
    for height, width in ((33, 47), (47, 33), (20, 20), (16, 16), (100, 21), (5, 7)):
        image = Image.fromarray(photo(height, width))
        resized = transforms.resize(image, [20], transforms.InterpolationMode.BILINEAR)
        tensor = transforms.to_tensor(transforms.center_crop(resized, [16, 16]))
        expected = transforms.normalize(tensor, CROPPED.mean, CROPPED.std).numpy()
        np.testing.assert_array_equal(preprocess(image, CROPPED)[0], expected)


def test_turns_images_as_their_exif_tag_says() -> None:
    image = Image.fromarray(photo(16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = preprocess(encoded(image, "PNG", exif=exif), SQUARE)
    np.testing.assert_array_equal(turned, preprocess(image.rotate(-90), SQUARE))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "YCbCr"])
def test_every_8_bit_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(photo(16, 16)).convert(mode)
    np.testing.assert_array_equal(preprocess(image, SQUARE), preprocess(image.convert("RGB"), SQUARE))


def test_transparent_palettes_are_read_without_a_warning() -> None:
    content = encoded(Image.fromarray(photo(16, 16)).convert("P"), "PNG", transparency=b"\x00\x80")
    assert preprocess(content, SQUARE).shape == (1, 3, 16, 16)


def test_deep_images_are_refused_instead_of_saturated() -> None:
    deep = Image.fromarray(np.full((16, 16), 40_000, np.uint16))
    for image in (deep, encoded(deep, "PNG")):
        with pytest.raises(InputError, match="more than 8 bits"):
            preprocess(image, SQUARE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"\x89PNG\r\n\x1a\n",
        encoded(Image.new("RGB", (9, 9)), "TGA"),
    ],
    ids=["empty", "text", "postscript", "header", "tga"],
)
def test_what_is_no_allowed_image_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="Not a readable image"):
        preprocess(content, SQUARE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    content = encoded(Image.fromarray(photo(64, 64)), kind)
    with pytest.raises(InputError):
        preprocess(content[: len(content) // 2], SQUARE)


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF"]), st.data())
def test_damaged_images_raise_nothing_but_input_errors(kind: str, data: st.DataObject) -> None:
    content = bytearray(encoded(Image.fromarray(photo(16, 16)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        result = preprocess(bytes(content), SQUARE)
    except InputError:
        return
    assert np.isfinite(result).all()


def test_bombs_are_refused_before_they_are_decoded() -> None:
    side = int(PIXEL_LIMIT**0.5) + 1
    for width, height in ((side, side), (20_000, 20_000)):
        with pytest.raises(InputError, match=r"too large|pixels as given"):
            preprocess(encoded(Image.new("1", (width, height)), "PNG"), SQUARE)


def test_strips_that_would_fill_memory_once_resized_are_refused() -> None:
    for settings in (SQUARE, CROPPED):
        with pytest.raises(InputError, match="longer than 100:1"):
            preprocess(Image.new("RGB", (1, 20_000)), settings)
        assert preprocess(Image.new("RGB", (1, LONGEST_ASPECT)), settings).shape == (1, 3, 16, 16)
    large = Preprocessing(16, 1000, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    with pytest.raises(InputError, match="pixels after resizing its short side"):
        preprocess(Image.new("RGB", (1, LONGEST_ASPECT)), large)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.png"):
        preprocess(tmp_path / "nowhere.png", SQUARE)
    with pytest.raises(InputError, match="Is a directory"):
        preprocess(tmp_path, SQUARE)


@pytest.mark.parametrize(
    "pixels",
    [
        photo(16, 16).astype(np.float32),
        photo(16, 16).astype(np.int64),
        photo(16, 16)[:, :, 0],
        photo(16, 16, 4),
        photo(16, 16).transpose(2, 0, 1),
        photo(0, 16),
    ],
    ids=["float", "int64", "two axes", "four channels", "channels first", "empty"],
)
def test_arrays_that_are_no_8_bit_image_are_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match="uint8"):
        preprocess(pixels, SQUARE)


def test_other_objects_are_refused() -> None:
    with pytest.raises(InputError, match="got int"):
        preprocess(3, SQUARE)  # type: ignore[arg-type]  # on purpose
