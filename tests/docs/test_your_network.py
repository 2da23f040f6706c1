"""docs/your-network.md: every file and command of it, on images of three shapes."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.cli.conftest import SaqQat
from tests.docs.blocks import blocks, run_document

DOCUMENT = Path(__file__).parents[2] / "docs" / "your-network.md"


def draw(shape: str, generator: np.random.Generator) -> Image.Image:
    """A bright shape before noise."""
    image = Image.fromarray(generator.integers(0, 120, (40, 40, 3), dtype=np.uint8))
    colour = tuple(int(value) for value in generator.integers(130, 256, 3))
    left, upper, side = (int(value) for value in generator.integers((2, 2, 16), (14, 14, 24)))
    pen = ImageDraw.Draw(image)
    if shape == "disc":
        pen.ellipse((left, upper, left + side, upper + side), fill=colour)
    else:
        for offset in range(0, side, 2 if shape == "square" else 6):
            pen.rectangle((left, upper + offset, left + side, upper + offset + 2), fill=colour)
    return image


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    generator = np.random.default_rng(0)
    for part, count in (("train", 64), ("val", 16)):
        for shape in ("disc", "square", "stripes"):
            folder = tmp_path / "photos" / part / shape
            folder.mkdir(parents=True)
            for index in range(count):
                draw(shape, generator).save(folder / f"{index:04}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_from_a_class_and_a_folder_of_images_to_answers_of_the_integers(
    photos: Path, saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]
) -> None:
    run_document(DOCUMENT, photos, saq_qat)
    told = capsys.readouterr().out
    assert "PASS: integers proved" in told
    assert (photos / "answer.py").is_file()
    sys.modules.pop("my_network", None)


def test_it_shows_files_and_commands() -> None:
    found = list(blocks(DOCUMENT))
    assert [block.file for block in found if block.file] == ["my_network.py", "recipe.yaml", "answer.py"]
    assert sum(block.language == "bash" for block in found) == 3
