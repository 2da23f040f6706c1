"""Images that a program holds as tensors, the input of its network already: validation images of a proof."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saq_qat.data.images import Images
from saq_qat.data.open import ImageData
from saq_qat.errors import DataError
from saq_qat_runtime.bundle.records import Preprocessing

__all__ = ["Labelled", "checked_inputs", "given_images"]

Labelled = tuple[Tensor, Tensor] | Iterable[Sequence[Tensor]]
"""Images float32 (N, C, S, S) and labels (N,), or batches of them, as a DataLoader gives."""

_CHANNELS = (1, 3)
_OVERSHOOT = 0.25
"""Of the range of pixels: what resizing in floats may leave it by."""


class _GivenImages(Images):
    """Inputs of a network, float32 (N, S, S, C), which ``network_input`` hands on as they are."""

    def __init__(self, inputs: NDArray[Any], labels: NDArray[np.int64]) -> None:
        self._inputs, self.labels = inputs, labels

    def read(self, index: int) -> NDArray[Any]:
        found: NDArray[Any] = self._inputs[index]
        return found


def given_images(labelled: Labelled, classes: tuple[str, ...], preprocessing: Preprocessing) -> ImageData:
    """Validation images of a program, all of them in memory, without any to train on.

    Args:
        classes: their names, in the order of the logits.
        preprocessing: how pictures become such inputs, which the bundle tells its users. Inputs that it
            cannot give, because they lie far outside the range of pixels, are warned of.

    Raises:
        DataError: no images, images of other shapes than the preprocessing says, labels that are no classes.
    """
    pairs = [_pair(batch) for batch in _batches(labelled)]
    if not pairs:
        raise DataError("The proof needs labelled images, and none were given. Give some of validation.")
    images = torch.cat([checked_inputs(inputs) for inputs, _ in pairs]).cpu()
    labels = torch.cat([labels for _, labels in pairs]).cpu().long()
    side = preprocessing.image_size
    if images.shape[1:] != (preprocessing.channels, side, side):
        raise DataError(
            "Images must be what the network was quantized for, "
            f"(N, {preprocessing.channels}, {side}, {side}); got {tuple(images.shape)}."
        )
    _check_labels(labels, classes)
    _warn_of_range(images, preprocessing)
    val = _GivenImages(images.permute(0, 2, 3, 1).contiguous().numpy(), labels.numpy())
    none = _GivenImages(np.zeros((0, side, side, preprocessing.channels), np.float32), np.zeros(0, np.int64))
    return ImageData(none, val, classes, preprocessing, "none", 0)


def checked_inputs(images: Tensor) -> Tensor:
    """Inputs float32 (N, C, S, S) of one or three channels, without gradient.

    Raises:
        DataError: they are something else, or hold numbers that are not finite.
    """
    described = f"got {images.dtype} {tuple(images.shape)}".replace("torch.", "")
    if not images.is_floating_point():
        raise DataError(
            f"Images must be float32 (N, C, S, S), normalised as the network wants them; {described}. "
            "Pixels become that by images.float() / 255, minus the mean, divided by the deviation."
        )
    if images.dim() != 4 or images.shape[2] != images.shape[3] or images.shape[1] not in _CHANNELS:
        raise DataError(f"Images must be squares of 1 or 3 channels, (N, C, S, S); {described}.")
    if not bool(images.isfinite().all()):
        raise DataError("Images must be finite; these hold infinity or NaN.")
    return images.detach().float()


def _batches(labelled: Any) -> Iterable[Any]:
    is_pair = isinstance(labelled, tuple | list) and len(labelled) == 2
    return [labelled] if is_pair and all(isinstance(part, Tensor) for part in labelled) else labelled


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, Sequence) or len(batch) != 2 or not all(isinstance(p, Tensor) for p in batch):
        raise DataError(
            "Labelled images are a pair of tensors, images (N, C, S, S) and labels (N,), or batches of such "
            f"pairs, as a DataLoader gives; got {type(batch).__name__}."
        )
    images, labels = batch
    if labels.dim() != 1 or labels.is_floating_point() or len(labels) != len(images):
        raise DataError(
            f"Labels must be whole numbers, one for each image; got {tuple(labels.shape)} of {labels.dtype} "
            f"for {len(images)} images."
        )
    return images, labels


def _check_labels(labels: Tensor, classes: tuple[str, ...]) -> None:
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if len(wrong):
        raise DataError(
            f"Labels must be 0 to {len(classes) - 1}, the places of the logits; got {int(wrong[0])}."
        )


def _warn_of_range(images: Tensor, preprocessing: Preprocessing) -> None:
    mean, std = (torch.tensor(n).view(-1, 1, 1) for n in (preprocessing.mean, preprocessing.std))
    pixels = images * std + mean
    low, high = float(pixels.min()), float(pixels.max())
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        warnings.warn(
            f"With mean {preprocessing.mean} and std {preprocessing.std} these images were made of pixels "
            f"from {low:.3g} to {high:.3g}, and pixels are 0 to 1. The bundle would prepare pictures in "
            "another way than the network has seen them: give export the mean= and std= of your transform.",
            stacklevel=4,
        )
