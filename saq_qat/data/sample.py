"""A smaller validation set with the proportions of the whole one."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from saq_qat.data.images import Images
from saq_qat.data.open import ImageData
from saq_qat.data.subset import stratified_order
from saq_qat.data.transforms import Pixels

__all__ = ["sample_indices", "sample_validation"]


class _Chosen(Images):
    """Some images of another collection, in ascending order."""

    def __init__(self, images: Images, chosen: NDArray[np.int64]) -> None:
        self._images = images
        self._chosen = chosen
        self.labels = images.labels[chosen]

    def read(self, index: int) -> Pixels:
        return self._images.read(int(self._chosen[index]))

    def preload(self, threads: int) -> None:
        self._images.preload(threads)


def sample_validation(images: ImageData, count: int | None) -> ImageData:
    """The same data with ``count`` validation images, the same for every seed; all if None or too many."""
    if count is None or count >= len(images.val):
        return images
    return replace(images, val=_Chosen(images.val, sample_indices(images, count)))


def sample_indices(images: ImageData, count: int) -> NDArray[np.int64]:
    """Which validation images ``sample_validation`` takes, int64 [count], ascending; all if too many."""
    return np.sort(stratified_order(images.val.labels, 0)[:count])
