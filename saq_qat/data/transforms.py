"""Evaluation preprocessing for training: the runtime's own, with errors that name the file, and as tensors.

What an image may be and how it is prepared stands in `saq_qat_runtime.preprocess` alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saq_qat.errors import DataError
from saq_qat_runtime import preprocess
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.preprocess import Pixels, fit

__all__ = ["Pixels", "fit", "network_input", "read_short_side", "read_square"]


def read_square(path: Path, image_size: int, resize: int | None) -> Pixels:
    """An image file as evaluation sees it: uint8 [image_size, image_size, 3].

    Raises DataError, naming the file, for anything that the runtime refuses too.
    """
    with _naming(path):
        return fit(preprocess.open_upright(path), image_size, resize)


def read_short_side(path: Path, resize: int) -> Pixels:
    """An image file whole, its short side scaled to `resize`: uint8 [H, W, 3]; raises as `read_square`."""
    with _naming(path):
        return np.asarray(preprocess.resize_short_side(preprocess.open_upright(path), resize))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise DataError(f"'{path}' is refused. {error} Or remove the file.") from error


def network_input(pixels: Pixels, preprocessing: Preprocessing) -> Tensor:
    """(pixels / 255 - mean) / std in float32 and this order: uint8 [N, H, W, C] -> float32 [N, C, H, W]."""
    return torch.from_numpy(preprocess.normalise(pixels, preprocessing))
