"""Batches as pure functions of (seed, epoch, position): the same with any workers, and after resuming."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saq_qat.data.augment import Augmentation, augment, numbers_per_sample
from saq_qat.data.counter import Stream, shuffled, uniforms
from saq_qat.data.images import Images
from saq_qat.data.open import ImageData
from saq_qat.data.transforms import network_input
from saq_qat.data.workers import prepared_batches
from saq_qat.errors import DataError, RecipeError

__all__ = ["steps_per_epoch", "train_batches", "val_batches"]

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _TrainEpoch:
    """Batch i of one rank's epoch, as pixels uint8 [N, S, S, 3] and labels int64 [N]."""

    images: Images
    order: NDArray[np.int64]
    batch_size: int
    share: slice
    augmentation: Augmentation
    image_size: int
    seed: int
    epoch: int

    def __call__(self, batch: int) -> Batch:
        start = batch * self.batch_size
        indices = self.order[start : start + self.batch_size][self.share]
        width = numbers_per_sample(self.augmentation)
        numbers = uniforms(Stream.AUGMENTATION, self.seed, self.epoch, indices, width)
        images = [self.images.read(index) for index in indices.tolist()]
        pixels = augment(images, self.augmentation, self.image_size, numbers)
        return torch.from_numpy(pixels), torch.from_numpy(self.images.labels[indices])


@dataclass(frozen=True)
class _ValPart:
    """Batch i of the images start..stop-1, as pixels uint8 [N, S, S, 3] and labels int64 [N]."""

    images: Images
    start: int
    stop: int
    batch_size: int

    def __call__(self, batch: int) -> Batch:
        first = self.start + batch * self.batch_size
        indices = range(first, min(first + self.batch_size, self.stop))
        pixels = np.stack([self.images.read(index) for index in indices])
        return torch.from_numpy(pixels), torch.from_numpy(
            self.images.labels[indices.start : indices.stop].copy()
        )


def steps_per_epoch(image_data: ImageData, batch_size: int) -> int:
    """Whole global batches in the training images; the rest of an epoch is dropped.

    Raises DataError if there is not even one.
    """
    steps = len(image_data.train) // batch_size
    if steps == 0:
        raise DataError(
            f"There must be at least one batch of training images: got {len(image_data.train)} images and "
            f"train.batch_size {batch_size}. Lower train.batch_size or add images."
        )
    return steps


def train_batches(
    image_data: ImageData,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start_batch: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """The batches of an epoch from `start_batch` on: float32 [n, 3, S, S] normalised, int64 [n].

    `batch_size` is global: rank r of w gets the r-th of w equal, contiguous parts of every global batch, so
    n is batch_size / world_size. Order depends on (seed, epoch), augmentation on (seed, epoch, image),
    nothing else.

    Raises RecipeError if the batch does not divide among the ranks; DataError as `steps_per_epoch`, and for
    damaged images or a dead worker while iterating.
    """
    steps = steps_per_epoch(image_data, batch_size)
    if batch_size % world_size:
        raise RecipeError(
            f"train.batch_size must be a multiple of the {world_size} processes; got {batch_size}."
        )
    part = batch_size // world_size
    make = _TrainEpoch(
        images=image_data.train,
        order=shuffled(Stream.ORDER, seed, epoch, len(image_data.train)),
        batch_size=batch_size,
        share=slice(rank * part, (rank + 1) * part),
        augmentation=image_data.augmentation,
        image_size=image_data.preprocessing.image_size,
        seed=seed,
        epoch=epoch,
    )
    return _normalised(image_data, make, range(start_batch, steps))


def val_batches(
    image_data: ImageData, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """The validation images in order: float32 [n, 3, S, S] normalised, int64 [n], n <= batch_size.

    Each rank gets a contiguous part; together they cover every image exactly once, without padding. A rank
    gets no batch at all if there are fewer images than ranks. Raises DataError for damaged images or a dead
    worker.
    """
    total = len(image_data.val)
    start, stop = total * rank // world_size, total * (rank + 1) // world_size
    make = _ValPart(image_data.val, start, stop, batch_size)
    return _normalised(image_data, make, range(-(-(stop - start) // batch_size)))


def _normalised(image_data: ImageData, make: _TrainEpoch | _ValPart, batches: range) -> Iterator[Batch]:
    if image_data.workers > 0:
        make.images.preload(image_data.workers)
    for pixels, labels in prepared_batches(make, batches, image_data.workers):
        yield network_input(pixels.numpy(), image_data.preprocessing), labels
