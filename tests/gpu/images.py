"""CIFAR-10 from archives of an image folder, decoded once; and its batches, made on the device."""

import hashlib
import io
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saq_qat.data.augment import crop_flip_in_torch
from saq_qat.data.counter import Stream, shuffled, uniforms
from saq_qat.data.images import MemoryImages
from saq_qat.data.open import ImageData
from saq_qat.data.subset import stratified_order
from saq_qat.data.transforms import Pixels, network_input
from saq_qat.errors import DataError
from saq_qat_runtime.bundle.records import Preprocessing

__all__ = ["PREPROCESSING", "Epoch", "Split", "as_image_data", "held_out", "random_splits", "read_splits"]

PREPROCESSING = Preprocessing(32, 32, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""As the public full-precision weights were trained."""

_CHUNK = 500


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, S, S, 3] and labels int64 [N], in sorted order of their class and name."""

    pixels: Pixels
    labels: NDArray[np.int64]

    def part(self, indices: NDArray[np.int64]) -> "Split":
        return Split(self.pixels[indices], self.labels[indices])


def read_splits(archives: Sequence[Path], folder: Path, workers: int) -> tuple[Split, Split]:
    """Training and validation images, of zip archives that hold ``train/<class>/*``, ``val/<class>/*``.

    Decoded by ``workers`` processes the first time, and kept in ``folder`` as one array.

    Raises:
        DataError: there is no image, or they are not all 32 pixels wide and high.
    """
    members = sorted((name, archive) for archive in archives for name in _names(archive))
    if not members:
        raise DataError(f"No image train/<class>/* or val/<class>/* in {[str(a) for a in archives]}.")
    digest = hashlib.sha256(repr([name for name, _ in members]).encode()).hexdigest()[:12]
    cache = folder / f"images-{digest}.npy"
    if cache.is_file():
        pixels: Pixels = np.load(cache)
    else:
        pixels = _decoded(members, workers)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{cache.stem}-{os.getpid()}.npy"  # another process may decode the same images
        np.save(partial, pixels)
        partial.replace(cache)
    paths = [PurePosixPath(name) for name, _ in members]
    classes = sorted({path.parts[1] for path in paths})
    labels = np.array([classes.index(path.parts[1]) for path in paths])
    is_train = np.array([path.parts[0] == "train" for path in paths])
    both = (Split(pixels[rows], labels[rows]) for rows in (is_train, ~is_train))
    train, val = both
    return train, val


def _names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in opened.namelist() if not name.endswith("/")]
    return [name for name in names if name.split("/")[0] in ("train", "val") and name.count("/") == 2]


def _decoded(members: list[tuple[str, Path]], workers: int) -> Pixels:
    chunks = [members[start : start + _CHUNK] for start in range(0, len(members), _CHUNK)]
    if workers <= 1:
        return np.concatenate([_decode(chunk) for chunk in chunks])
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        return np.concatenate(list(pool.map(_decode, chunks)))


def _decode(members: list[tuple[str, Path]]) -> Pixels:
    side = PREPROCESSING.image_size
    pixels = np.empty((len(members), side, side, 3), np.uint8)
    opened = {archive: zipfile.ZipFile(archive) for archive in {archive for _, archive in members}}
    for square, (name, archive) in zip(pixels, members, strict=True):
        with Image.open(io.BytesIO(opened[archive].read(name))) as image:
            if image.size != (side, side):
                raise DataError(f"{archive}: {name} must have {side}x{side} pixels, and has {image.size}.")
            square[:] = np.asarray(image.convert("RGB"))
    return pixels


def random_splits(train: int, val: int) -> tuple[Split, Split]:
    """Noise whose classes differ in brightness, for a rehearsal: as many images as asked for."""
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = generator.integers(0, 10, count)
        pixels = generator.integers(0, 96, (count, 32, 32, 3)) + 16 * labels[:, None, None, None]
        return Split(pixels.astype(np.uint8), labels)

    return split(train), split(val)


def held_out(train: Split, count: int) -> tuple[Split, Split]:
    """Training images without ``count`` of them, of every class alike, and those."""
    order = stratified_order(train.labels, 0)
    return train.part(np.sort(order[count:])), train.part(np.sort(order[:count]))


def as_image_data(train: Split, val: Split) -> ImageData:
    """The same images as the product's own."""
    names = tuple(str(label) for label in range(int(train.labels.max()) + 1))
    images = [MemoryImages(split.pixels, split.labels) for split in (train, val)]
    return ImageData(images[0], images[1], names, PREPROCESSING, "crop_flip", 0)


class Epoch:
    """The batches that the product makes for (seed, epoch), several at a time and on the device.

    Args:
        squares: all training images, uint8 [N, S, S, 3], on the device; labels: int64 [N], there too.
    """

    def __init__(self, squares: Tensor, labels: Tensor, batch: int, seed: int, epoch: int) -> None:
        self._squares, self._labels, self._batch = squares, labels, batch
        self._order = shuffled(Stream.ORDER, seed, epoch, len(labels))
        self._numbers = uniforms(Stream.AUGMENTATION, seed, epoch, self._order, 3)

    def batches(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Batches ``first`` to ``first + count - 1``: float32 [count, B, 3, S, S], int64 [count, B]."""
        rows = slice(first * self._batch, (first + count) * self._batch)
        chosen = torch.from_numpy(self._order[rows]).to(self._squares.device)
        crops = crop_flip_in_torch(self._squares[chosen], self._numbers[rows])
        images = network_input(crops, PREPROCESSING)
        return images.view(count, self._batch, *images.shape[1:]), self._labels[chosen].view(count, -1)
