"""torchvision's RandAugment and random erasing, whose every draw is a function of (seed, epoch, image).

Both draw from torch's global generator; it is seeded for each image, and afterwards as it was before.
"""

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from saq_qat.data.transforms import Pixels
from saq_qat.recipe import schema

__all__ = ["Policy"]


class Policy:
    """What happens to each training image behind its crop, in this order.

    Args:
        rand_augment: draws from torchvision's 14 operations (Cubuk et al., 2019).
        erasing: sets a rectangle of 2 to 33 % of the area to the mean colour (Zhong et al., 2017).
        mean: that colour, in 0..1.
    """

    def __init__(
        self,
        rand_augment: schema.RandAugment | None,
        erasing: schema.RandomErasing | None,
        mean: tuple[float, ...],
    ) -> None:
        # with torch's compiler: a second, which recipes without a policy need not wait
        from torchvision.transforms import InterpolationMode, v2

        self._rand_augment = self._erase = None
        if rand_augment is not None:
            self._rand_augment = v2.RandAugment(
                rand_augment.operations, rand_augment.magnitude, interpolation=InterpolationMode.BILINEAR
            )
        if erasing is not None:
            colour = [round(255 * channel) for channel in mean]
            self._erase = v2.RandomErasing(p=erasing.probability, value=colour)

    @classmethod
    def of(cls, data: schema.Data, mean: tuple[float, ...]) -> Self | None:
        """The policy of a recipe's data; None if it has none."""
        wanted = (data.rand_augment, data.random_erasing)
        return None if wanted == (None, None) else cls(*wanted, mean)

    def __call__(self, images: Pixels, seeds: NDArray[np.uint64]) -> Pixels:
        """Images uint8 [N, H, W, 3], each with the draws of its seed, in new memory."""
        changed = np.empty_like(images)
        with torch.random.fork_rng(devices=()):
            for image, seed, result in zip(images, seeds.tolist(), changed, strict=True):
                # Of this generator alone: torch.manual_seed would seed those of GPUs too.
                torch.default_generator.manual_seed(seed)
                result[:] = self._changed(image)
        return changed

    def _changed(self, image: Pixels) -> Pixels:
        if self._rand_augment is not None:
            image = np.array(self._rand_augment(Image.fromarray(image)))
        if self._erase is not None:
            planes = torch.from_numpy(image).permute(2, 0, 1)
            image = self._erase(planes).permute(1, 2, 0).numpy()
        return image
