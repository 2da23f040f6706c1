"""Images of every format that is read, harmed: refused, or the same pixels in training and in serving."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from saq_qat.data.transforms import network_input, read_crop, read_square
from saq_qat.errors import DataError
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.preprocess import Pixels, preprocess
from tests.data.test_odd_images import MAKERS
from tests.fuzz.mutate import damaged_bytes
from tests.fuzz.surface import Case, Surface

__all__ = ["SURFACE"]

SETTINGS = Preprocessing(8, 10, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def _square(path: Path) -> Pixels:
    return read_square(path, SETTINGS.image_size, SETTINGS.resize)


def _whole_crop(path: Path) -> Pixels:
    return read_crop(path, SETTINGS.image_size, lambda width, height: (0, 0, width, height))


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    def case(random: Random) -> str:
        suffix, content = random.choice(MAKERS)(np.random.default_rng(random.getrandbits(64)))
        content = damaged_bytes(random, content) if random.random() < 0.85 else content
        path = folder / f"input{suffix}"
        path.write_bytes(content)
        try:
            served = preprocess(content, SETTINGS)
        except InputError as error:
            assert str(error).strip()
            for read in (_square, _whole_crop):
                with pytest.raises(DataError):
                    read(path)
            return "refused"
        trained = network_input(torch.tensor(_square(path))[None], SETTINGS)
        assert np.array_equal(served, trained.numpy())
        assert _whole_crop(path).shape == (8, 8, 3)
        return "read"

    yield case


SURFACE = Surface("images", _opened, mebibytes=900)
