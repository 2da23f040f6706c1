"""Labelled images that can be read by index: held in memory, or decoded from files on demand."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saq_qat.data.transforms import Pixels, read_short_side, read_square

__all__ = ["FileImages", "Images", "MemoryImages", "ReadShortSide", "ReadSquare"]

CACHE_BYTES = 1_500_000_000


class Images(ABC):
    """A sequence of images with labels, int64 [len]."""

    labels: NDArray[np.int64]

    @abstractmethod
    def read(self, index: int) -> Pixels:
        """Image `index` as uint8 [H, W, 3]; raises DataError if its file is damaged."""

    def preload(self, threads: int) -> None:  # noqa: B027 (images in memory have nothing to load)
        """Fill the cache, if there is one, so that processes forked afterwards share it."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 [3, H, W], label), as torch datasets give it."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        pixels = np.array(self.read(index)).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels)), int(self.labels[index])


class MemoryImages(Images):
    """Images that are one array: pixels uint8 [N, H, W, 3], labels [N]."""

    def __init__(self, pixels: Pixels, labels: NDArray[np.int64]) -> None:
        self.pixels = pixels
        self.labels = labels

    def read(self, index: int) -> Pixels:
        pixels: Pixels = self.pixels[index]
        return pixels


@dataclass(frozen=True)
class ReadSquare:
    """Read a file as evaluation sees it: a square of side `image_size`."""

    image_size: int
    resize: int

    def __call__(self, path: Path) -> Pixels:
        return read_square(path, self.image_size, self.resize)

    def expected_bytes(self) -> int:
        return 3 * self.image_size**2


@dataclass(frozen=True)
class ReadShortSide:
    """Read a file whole, scaled so that its short side is `resize`: what resized crops are taken from."""

    resize: int

    def __call__(self, path: Path) -> Pixels:
        return read_short_side(path, self.resize)

    def expected_bytes(self) -> int:
        # Photographs are 4:3 on average.
        return 3 * self.resize**2 * 4 // 3


class FileImages(Images):
    """Images decoded from files when first read.

    Decoded pixels are kept in memory if all of them are expected to fit `cache_bytes` (1.5 GB for each
    split; every process of a distributed run has its own). Pixels are the same with and without the cache.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: NDArray[np.int64],
        reader: ReadSquare | ReadShortSide,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.paths = tuple(paths)
        self.labels = labels
        self.reader = reader
        fits = len(paths) * reader.expected_bytes() <= cache_bytes
        self._cache: dict[int, Pixels] | None = {} if fits else None

    def read(self, index: int) -> Pixels:
        if self._cache is None:
            return self.reader(self.paths[index])
        if index not in self._cache:
            self._cache[index] = self.reader(self.paths[index])
        return self._cache[index]

    def preload(self, threads: int) -> None:
        if self._cache is None or len(self._cache) == len(self):
            return
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(self.read, range(len(self))):
                pass
