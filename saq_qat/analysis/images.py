"""The fixed images that a loss surface is measured on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saq_qat.data.batches import val_batches
from saq_qat.data.open import ImageData, open_data
from saq_qat.data.sample import sample_validation
from saq_qat.recipe.schema import Recipe

__all__ = ["FixedBatches", "fixed_training_images"]


@dataclass(frozen=True)
class FixedBatches:
    """Normalised images (n, 3, S, S) of ``dtype`` and classes (n,), on ``device``, anew for every pass."""

    images: ImageData
    batch_size: int
    device: torch.device
    dtype: torch.dtype = torch.float32

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in val_batches(self.images, batch_size=self.batch_size, device=self.device):
            yield images.to(self.dtype), labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images.val)


def fixed_training_images(recipe: Recipe, count: int | None) -> ImageData:
    """The run's training images in the place of validation images: prepared as these are, never augmented.

    ``count`` of them, the same for every seed and as many of each class as the classes have; all if None or
    too many.

    Raises:
        DataError: the images are not what the recipe says.
    """
    plain = recipe.data.model_copy(update={"augmentation": "none", "workers": 0})
    images = open_data(plain, recipe.seed)
    return sample_validation(replace(images, val=images.train), count)
