"""Images of every format that is read, harmed: refused, or the same pixels in training and in serving."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np
import torch

from saq_qat.data.transforms import network_input, read_crop, read_square
from saq_qat.errors import DataError
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.preprocess import preprocess
from tests.data.test_odd_images import MAKERS
from tests.fuzz.mutate import damaged_bytes
from tests.fuzz.surface import Case, Surface

__all__ = ["SURFACE"]

SETTINGS = Preprocessing(8, 10, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


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
            for read in (
                lambda: read_square(path, 8, 10),
                lambda: read_crop(path, 8, lambda w, h: (0, 0, w, h)),
            ):
                try:
                    read()
                except DataError:
                    continue
                raise AssertionError(f"serving refuses what training reads: {error}") from error
            return "refused"
        trained = network_input(torch.tensor(read_square(path, 8, 10))[None], SETTINGS)
        assert np.array_equal(served, trained.numpy())
        assert read_crop(path, 8, lambda w, h: (0, 0, w, h)).shape == (8, 8, 3)
        return "read"

    yield case


SURFACE = Surface("images", _opened, mebibytes=900)
