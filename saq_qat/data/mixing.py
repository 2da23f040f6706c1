"""torchvision's MixUp and CutMix, whose every draw is a function of (seed, epoch, batch)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from saq_qat.recipe import schema

__all__ = ["Mixer"]

Batch = tuple[Tensor, Tensor]


class Mixer:
    """Mixes each image of a batch with the one before it, and their labels in the same proportion.

    With mixup and cutmix, each batch draws one of the two. The draws come from torch's global generator,
    which is seeded for each batch, and afterwards as it was before.
    """

    def __init__(self, mixing: schema.Mixing, classes: int) -> None:
        # with torch's compiler: a second, which recipes without mixing need not wait
        from torchvision.transforms import v2

        kinds = ((v2.MixUp, mixing.mixup), (v2.CutMix, mixing.cutmix))
        chosen = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha is not None]
        self._transform = v2.RandomChoice(chosen)

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> Batch:
        """Images float32 [N, C, H, W] and labels int64 [N] become mixed ones and float32 [N, classes]."""
        with torch.random.fork_rng(devices=()):
            # Of this generator alone: torch.manual_seed would seed those of GPUs too.
            torch.default_generator.manual_seed(seed)
            mixed: Batch = self._transform(images, labels)
        return mixed

    def batches(self, batches: Iterator[Batch], seeds: list[int], *, leading: int) -> Iterator[Batch]:
        """Each batch mixed with its seed, without the ``leading`` images that others only mix with."""
        for (images, labels), seed in zip(batches, seeds, strict=True):
            mixed, shares = self(images, labels, seed)
            yield mixed[leading:], shares[leading:]
