"""Labelled images that can be read by index: held in memory, or decoded from files on demand."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saq_qat.data.transforms import (
    ChooseBox,
    ImageFile,
    Pixels,
    read_crop,
    read_square,
    read_whole,
    resized_crop,
)

__all__ = ["CACHE_BYTES", "FileImages", "Images", "MemoryImages", "WholeFileImages"]

CACHE_BYTES = 1_500_000_000


class Images(ABC):
    """A sequence of images with labels, int64 [len]."""

    labels: NDArray[np.int64]
    _resident: Tensor | None = None

    @abstractmethod
    def read(self, index: int) -> Pixels:
        """Image `index` as uint8 [H, W, 3]; raises DataError if its file is damaged."""

    def read_batch(self, indices: NDArray[np.int64]) -> Pixels:
        """Images of one size, uint8 [len(indices), H, W, 3], in memory of their own; raises as `read`."""
        return np.stack([self.read(index) for index in indices.tolist()])

    def read_crop(self, index: int, image_size: int, choose: ChooseBox) -> Pixels:
        """A rectangle of image `index`, resized: uint8 [image_size, image_size, 3]; raises as `read`."""
        whole = Image.fromarray(self.read(index))
        return resized_crop(whole, image_size, choose(*whole.size))

    def in_memory(self) -> Pixels | None:
        """All images as one array, uint8 [len, H, W, 3], decoded now if need be; None if it would not fit."""
        return None

    def on_device(self, device: torch.device) -> Tensor | None:
        """All images, uint8 [len, H, W, 3], on a device that keeps them; None if they would not fit."""
        if self._resident is None or self._resident.device != device:
            pixels = self.in_memory()
            fits = pixels is not None and pixels.nbytes <= CACHE_BYTES
            self._resident = torch.from_numpy(pixels).to(device) if fits else None
        return self._resident

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

    def read_batch(self, indices: NDArray[np.int64]) -> Pixels:
        pixels: Pixels = self.pixels[indices]
        return pixels

    def in_memory(self) -> Pixels | None:
        return self.pixels


class WholeFileImages(Images):
    """Images of files, or of their content in memory, at their own size, decoded whenever they are read."""

    def __init__(self, paths: Sequence[ImageFile], labels: NDArray[np.int64]) -> None:
        self.paths = tuple(paths)
        self.labels = labels

    def read(self, index: int) -> Pixels:
        return read_whole(self.paths[index])

    def read_crop(self, index: int, image_size: int, choose: ChooseBox) -> Pixels:
        return read_crop(self.paths[index], image_size, choose)


class FileImages(Images):
    """Images of files as evaluation sees them, squares of side `image_size`, decoded when first read.

    Decoded pixels are kept in one array if all of them fit `cache_bytes` (1.5 GB for each split; every
    process of a distributed run has its own). Pixels are the same with and without the cache.
    """

    def __init__(
        self,
        paths: Sequence[ImageFile],
        labels: NDArray[np.int64],
        image_size: int,
        resize: int | None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.paths = tuple(paths)
        self.labels = labels
        self.image_size = image_size
        self.resize = resize
        shape = (len(self.paths), image_size, image_size, 3)
        # Memory that nothing was written to costs nothing yet.
        self._cache = np.empty(shape, np.uint8) if np.prod(shape) <= cache_bytes else None
        self._cached = np.zeros(len(self.paths), bool)

    def read(self, index: int) -> Pixels:
        if self._cache is None:
            return read_square(self.paths[index], self.image_size, self.resize)
        self._decode(index)
        pixels: Pixels = self._cache[index]
        return pixels

    def read_batch(self, indices: NDArray[np.int64]) -> Pixels:
        if self._cache is None:
            return super().read_batch(indices)
        for index in indices[~self._cached[indices]].tolist():
            self._decode(index)
        pixels: Pixels = self._cache[indices]
        return pixels

    def in_memory(self) -> Pixels | None:
        self.preload(threads=torch.get_num_threads())
        return self._cache

    def preload(self, threads: int) -> None:
        if self._cache is None or self._cached.all():
            return
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(self._decode, range(len(self))):
                pass

    def _decode(self, index: int) -> None:
        if self._cache is not None and not self._cached[index]:
            self._cache[index] = read_square(self.paths[index], self.image_size, self.resize)
            self._cached[index] = True
