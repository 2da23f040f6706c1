"""One behaviour for odd images: training and serving give equal arrays, or both refuse."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.random import Generator
from PIL import Image

from saq_qat.data.transforms import network_input, read_square
from saq_qat.errors import DataError
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.preprocess import FORMATS, preprocess

SETTINGS = (
    Preprocessing(16, 20, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Preprocessing(8, 8, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)),
)
Maker = Callable[[Generator], tuple[str, bytes]]


def _photo(random: Generator, height: int = 0, width: int = 0) -> Image.Image:
    height, width = height or int(random.integers(1, 60)), width or int(random.integers(1, 60))
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def _saved(image: Image.Image, kind: str, **options: object) -> tuple[str, bytes]:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f".{kind.lower()}", stream.getvalue()


def _deep(random: Generator) -> tuple[str, bytes]:
    return _saved(Image.fromarray(random.integers(0, 2**16, (9, 12)).astype(np.uint16)), "PNG")


def _deep_pgm(random: Generator) -> tuple[str, bytes]:
    return ".pgm", b"P5 3 2 65535\n" + random.bytes(12)


def _deep_colour_ppm(random: Generator) -> tuple[str, bytes]:
    return ".ppm", b"P6 4 3 65535\n" + random.bytes(72)


def _strip(random: Generator) -> tuple[str, bytes]:
    long = int(random.choice([99, 100, 101, 2_000, 20_000]))
    return _saved(Image.new("RGB", (long, 1) if random.random() < 0.5 else (1, long), (9, 8, 7)), "PNG")


def _tiny(random: Generator) -> tuple[str, bytes]:
    kind = str(random.choice(FORMATS))
    return _saved(_photo(random, int(random.integers(1, 3)), int(random.integers(1, 3))), kind)


def _transparent_palette(random: Generator) -> tuple[str, bytes]:
    clear: object = random.bytes(7) if random.random() < 0.5 else int(random.integers(0, 8))
    return _saved(_photo(random).quantize(8), "PNG", transparency=clear)


def _clear_colour(random: Generator) -> tuple[str, bytes]:
    return _saved(_photo(random), "PNG", transparency=(1, 2, 3))


def _with_alpha(random: Generator) -> tuple[str, bytes]:
    image = _photo(random).convert(str(random.choice(["RGBA", "LA"])))
    image.putalpha(Image.fromarray(random.integers(0, 256, image.size[::-1], np.uint8)))
    return _saved(image, "PNG" if image.mode == "LA" or random.random() < 0.5 else "WEBP")


def _turned(random: Generator) -> tuple[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = int(random.integers(0, 12))  # 1 to 8 have a meaning
    return _saved(_photo(random), str(random.choice(["JPEG", "PNG", "WEBP", "TIFF"])), exif=exif)


def _broken_exif(random: Generator) -> tuple[str, bytes]:
    return _saved(_photo(random), "JPEG", exif=b"Exif\x00\x00" + random.bytes(40))


def _other_mode(random: Generator) -> tuple[str, bytes]:
    mode = str(random.choice(["CMYK", "L", "1", "YCbCr", "P"]))
    return _saved(_photo(random).convert(mode), "JPEG" if mode in ("CMYK", "YCbCr") else "PNG")


def _cut(random: Generator) -> tuple[str, bytes]:
    suffix, content = _saved(_photo(random, 40, 50), str(random.choice(["JPEG", "PNG", "GIF", "TIFF"])))
    return suffix, content[: int(random.integers(0, len(content)))]


def _damaged(random: Generator) -> tuple[str, bytes]:
    suffix, content = _saved(_photo(random), str(random.choice(FORMATS)))
    changed = bytearray(content)
    for place in random.integers(0, len(changed), 3):
        changed[place] = random.integers(0, 256)
    return suffix, bytes(changed)


def _deep_tiff(random: Generator) -> tuple[str, bytes]:
    return _saved(Image.fromarray(random.integers(0, 2**16, (9, 12)).astype(np.uint16)), "TIFF")


def _several(random: Generator) -> tuple[str, bytes]:
    frames = [_photo(random, 9, 12) for _ in range(3)]
    kind = str(random.choice(["GIF", "TIFF"]))
    return _saved(frames[0], kind, save_all=True, append_images=frames[1:])


def _foreign(random: Generator) -> tuple[str, bytes]:
    kind = str(random.choice(["TGA", "PCX", "ICO"]))
    return ".png", _saved(_photo(random, 20, 20), kind)[1]


MAKERS: tuple[Maker, ...] = (
    _deep, _deep_pgm, _deep_colour_ppm, _strip, _tiny, _transparent_palette, _clear_colour, _with_alpha,
    _turned, _broken_exif, _other_mode, _cut, _damaged, _deep_tiff, _several, _foreign,
)  # fmt: skip  # one value a line is a page
REFUSED = {_deep, _deep_pgm, _deep_tiff, _foreign}
ACCEPTED = {
    _deep_colour_ppm,
    _tiny,
    _transparent_palette,
    _clear_colour,
    _with_alpha,
    _turned,
    _other_mode,
    _several,
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns of corrupt EXIF data
@pytest.mark.parametrize("settings", SETTINGS, ids=["cropped", "square"])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__.lstrip("_"))
def test_training_and_serving_agree(make: Maker, settings: Preprocessing, tmp_path: Path) -> None:
    outcomes = set()
    for seed in range(15):
        suffix, content = make(np.random.default_rng(seed))
        path = tmp_path / f"odd_{seed}{suffix}"
        path.write_bytes(content)
        try:
            pixels = read_square(path, settings.image_size, settings.resize)
        except DataError as error:
            outcomes.add("refused")
            assert str(path) in str(error)
            for served in (path, content):
                with pytest.raises(InputError) as refusal:
                    preprocess(served, settings)
                assert str(refusal.value) in str(error)
            continue
        outcomes.add("accepted")
        trained = network_input(torch.tensor(pixels[None]), settings).numpy()
        for served in (path, content):
            assert np.array_equal(preprocess(served, settings).view(np.int32), trained.view(np.int32))
    assert make not in REFUSED or outcomes == {"refused"}
    assert make not in ACCEPTED or outcomes == {"accepted"}
    assert make is not _strip or outcomes == {"accepted", "refused"}
