"""An epoch as a function from the number of a batch to its pixels and labels, in whatever process asks."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saq_qat.data.augment import Augmentation, augmented, crop_flip_in_torch, numbers_per_sample
from saq_qat.data.counter import Stream, seeds, uniforms
from saq_qat.data.images import Images
from saq_qat.data.policy import Policy

__all__ = ["Batch", "ResidentEpoch", "TrainEpoch", "ValPart"]

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TrainEpoch:
    """Batch i of one rank's epoch, as pixels uint8 [N, S, S, 3] and labels int64 [N].

    `leading`: whether the image before the rank's share comes first, the last of the batch before its first.
    """

    images: Images
    order: NDArray[np.int64]
    batch_size: int
    share: slice
    augmentation: Augmentation
    image_size: int
    seed: int
    epoch: int
    policy: Policy | None = None
    leading: bool = False

    def __call__(self, batch: int) -> Batch:
        indices = self.indices(batch)
        numbers = self.numbers(indices)
        pixels = augmented(self.images, indices, self.augmentation, self.image_size, numbers)
        if self.policy is not None:
            pixels = self.policy(pixels, seeds(Stream.POLICY, self.seed, self.epoch, indices))
        return torch.from_numpy(pixels), torch.from_numpy(self.images.labels[indices])

    def indices(self, batch: int) -> NDArray[np.int64]:
        """Which images this rank's share of a batch is made of."""
        start = batch * self.batch_size
        batch_indices = self.order[start : start + self.batch_size]
        own = batch_indices[self.share]
        return np.append(batch_indices[self.share.start - 1], own) if self.leading else own

    def numbers(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """What their augmentation is drawn from."""
        width = numbers_per_sample(self.augmentation)
        return uniforms(Stream.AUGMENTATION, self.seed, self.epoch, indices, width)


@dataclass(frozen=True)
class ResidentEpoch:
    """The same batches of images that lie on a device, made there; none of them is copied to it again."""

    epoch: TrainEpoch
    squares: Tensor

    def __call__(self, batch: int) -> Batch:
        indices = self.epoch.indices(batch)
        squares = self.squares[torch.from_numpy(indices).to(self.squares.device)]
        if self.epoch.augmentation == "crop_flip":
            squares = crop_flip_in_torch(squares, self.epoch.numbers(indices))
        return squares, torch.from_numpy(self.epoch.images.labels[indices])


@dataclass(frozen=True)
class ValPart:
    """Batch i of the images start..stop-1, as pixels uint8 [N, S, S, 3] and labels int64 [N]."""

    images: Images
    start: int
    stop: int
    batch_size: int

    def __call__(self, batch: int) -> Batch:
        first = self.start + batch * self.batch_size
        indices = np.arange(first, min(first + self.batch_size, self.stop))
        pixels = self.images.read_batch(indices)
        return torch.from_numpy(pixels), torch.from_numpy(self.images.labels[indices])
