"""Small folders of images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """make_folder(train=n, val=n, size=(w, h)): three classes of n noise PNGs each; returns the root."""

    def make(train: int = 4, val: int = 2, size: tuple[int, int] = (20, 16)) -> Path:
        rng = np.random.default_rng(0)
        root = tmp_path / "images"
        for split, count in (("train", train), ("val", val)):
            for name in ("ant", "bee", "cat"):
                folder = root / split / name
                folder.mkdir(parents=True)
                for index in range(count):
                    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
                    Image.fromarray(pixels).save(folder / f"{index}.png")
        return root

    return make
