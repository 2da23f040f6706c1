"""Evaluation preprocessing in training: every kind of image file, the runtime's bits, and refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from saq_qat.data.transforms import (
    Box,
    fit,
    network_input,
    read_crop,
    read_square,
    read_whole,
    resized_crop,
)
from saq_qat.errors import DataError
from saq_qat_runtime import preprocess as preprocess_module
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.preprocess import PIXEL_LIMIT, preprocess, resize_short_side

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def in_torch(pixels: NDArray[np.uint8]) -> Tensor:
    planes = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).to(torch.float32)
    mean, std = (torch.tensor(numbers).view(1, -1, 1, 1) for numbers in (MEAN, STD))
    return planes.div_(255).sub_(mean).div_(std)


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    size=st.integers(1, 40),
    resize=st.integers(0, 12) | st.none(),
)
def test_training_and_serving_see_the_bits_that_torch_computes(
    width: int, height: int, size: int, resize: int | None
) -> None:
    short = None if resize is None else size + resize
    settings, image = Preprocessing(size, short, 3, MEAN, STD), Image.fromarray(noise(height, width))
    square = fit(image, size, short)[None]
    trained, served, expected = (
        network_input(torch.tensor(square), settings),
        preprocess(image, settings),
        in_torch(square),
    )
    assert torch.equal(trained.view(torch.int32), expected.view(torch.int32))
    assert np.array_equal(served.view(np.int32), expected.numpy().view(np.int32))


def test_normalise_divides_subtracts_and_divides_in_float32() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    expected = ((levels.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    found = network_input(torch.from_numpy(levels), Preprocessing(16, None, 3, MEAN, STD))
    assert found.is_contiguous()
    assert np.array_equal(found.numpy().view(np.int32), np.ascontiguousarray(expected).view(np.int32))


@given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.integers(1, 40))
def test_resize_and_crop_follow_torchvision(width: int, height: int, size: int) -> None:
    image = Image.fromarray(noise(height, width))
    reference = v2.Compose([v2.Resize(size + 5), v2.CenterCrop(size)])(image)
    assert np.array_equal(fit(image, size, size + 5), np.asarray(reference))
    assert min(resize_short_side(image, size).size) == size


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_every_colour_mode_becomes_rgb(mode: str, suffix: str, tmp_path: Path) -> None:
    # Flat colours survive JPEG and palettes.
    path = tmp_path / f"image{suffix}"
    image = Image.new("RGB", (8, 6), (204, 51, 102)).convert(mode, dither=Image.Dither.NONE)
    try:
        image.save(path)
    except (OSError, ValueError):
        pytest.skip(f"Pillow writes no {mode} as {suffix}")
    decoded = read_whole(path)
    assert decoded.shape == (6, 8, 3)
    assert np.abs(decoded.astype(int) - np.asarray(image.convert("RGB"))).max() <= 4


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (200, 30, 90, 0)).save(tmp_path / "clear.png")
    assert tuple(read_whole(tmp_path / "clear.png")[0, 0]) == (200, 30, 90)
    palette = Image.new("RGB", (4, 4), (200, 30, 90)).quantize(2)
    palette.save(tmp_path / "palette.png", transparency=b"\x00\x80")
    assert tuple(read_whole(tmp_path / "palette.png")[0, 0]) == (200, 30, 90)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4), "black")
    image.paste((255, 255, 255), (0, 0, 3, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    decoded = read_whole(tmp_path / "turned.png")
    assert decoded.shape == (6, 4, 3)
    assert decoded[:3].min() == 255 and decoded[3:].max() == 0


def test_16_bit_greyscale_is_refused_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png.*8 bits per channel"):
        read_whole(tmp_path / "deep.png")


def test_broken_files_are_data_errors_that_name_the_path(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(noise(40, 40)).save(whole)
    contents = {"empty.jpg": b"", "text.jpg": b"not an image", "cut.jpg": whole.read_bytes()[:700]}
    contents["postscript.jpg"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_square(tmp_path / name, 16, 16)
    with pytest.raises(DataError, match=r"absent\.jpg"):
        read_square(tmp_path / "absent.jpg", 16, 16)


def photograph(width: int, height: int) -> Image.Image:
    """Smooth at every scale, with edges and a little noise, as photographs are."""
    random = np.random.default_rng(width * height)
    layers = [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC if side < 9 else Image.Resampling.NEAREST
            ),
            float,
        )
        for side in (3, 6, 12)
    ]
    mixed = np.mean(layers, axis=0) + random.normal(0, 2, (height, width, 3))
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize(
    ("side", "size"), [(8, (407, 333)), (20, (400, 328)), (50, (407, 333)), (120, (400, 328))]
)
def test_a_crop_is_that_of_the_whole_image(
    side: int, turned: int, size: tuple[int, int], tmp_path: Path
) -> None:
    """Exactly of a PNG, and within a level of 255 of a JPEG, which is decoded smaller where it can be."""
    image, exif = photograph(*size), Image.Exif()
    exif[0x0112] = turned
    image.save(tmp_path / "a.png", exif=exif)
    image.save(tmp_path / "a.jpg", exif=exif, quality=90)
    sizes = []

    def choose(width: int, height: int) -> Box:
        sizes.append((width, height))
        return width // 10, height // 20, width - width // 7, height - height // 9

    for name, mean, most in (("a.png", 0.0, 0), ("a.jpg", 1.0, 16)):
        whole = Image.fromarray(read_whole(tmp_path / name))
        expected = resized_crop(whole, side, choose(*whole.size)).astype(int)
        difference = np.abs(read_crop(tmp_path / name, side, choose) - expected)
        assert difference.mean() <= mean and difference.max() <= most
    assert len(set(sizes)) == 1


def test_a_jpeg_is_decoded_smaller_where_two_pixels_are_left_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph(800, 800).save(tmp_path / "a.jpg")
    decoded: list[tuple[int, int]] = []
    upright = preprocess_module.upright

    def noted(image: Image.Image) -> Image.Image:
        decoded.append(image.size)
        return upright(image)

    monkeypatch.setattr(preprocess_module, "upright", noted)
    for side in (40, 50, 51, 100, 101, 200, 201):
        read_crop(tmp_path / "a.jpg", side, lambda width, height: (0, 0, width, height))
    assert [width for width, _ in decoded] == [100, 100, 200, 200, 400, 400, 800]


def test_a_crop_of_a_damaged_file_names_it(tmp_path: Path) -> None:
    photograph(60, 50).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    Image.new("1", (15000, 15000)).save(tmp_path / "bomb.png")
    for name in ("cut.jpg", "absent.jpg", "bomb.png"):
        with pytest.raises(DataError, match=name):
            read_crop(tmp_path / name, 4, lambda width, height: (0, 0, width, height))


@pytest.mark.parametrize("size", [(PIXEL_LIMIT // 5000 + 1, 5000), (15000, 15000), (101, 1)])
def test_images_that_would_fill_memory_are_refused_unread(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", size).save(path)
    with pytest.raises(DataError, match=r"bomb\.png.*(pixels as given|too large|longer than 100:1)"):
        read_square(path, 16, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_crop_is_chosen_in_the_upright_image_of_every_format(
    kind: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph(60, 40).save(tmp_path / "turned", kind, exif=exif)
    whole = read_whole(tmp_path / "turned")
    sizes: list[tuple[int, int]] = []

    def choose(width: int, height: int) -> tuple[int, int, int, int]:
        sizes.append((width, height))
        return 3, 5, 33, 35

    crop = read_crop(tmp_path / "turned", 30, choose)
    assert sizes == [whole.shape[1::-1]]
    assert np.array_equal(crop, whole[5:35, 3:33])
