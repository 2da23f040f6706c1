"""Images that a program holds as tensors, the input of its network already: validation images of a proof."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saq_qat.data.images import Images
from saq_qat.data.open import ImageData
from saq_qat.errors import DataError
from saq_qat_runtime.bundle.records import Preprocessing

__all__ = ["Labelled", "checked_inputs", "example_batches", "given_images"]

Labelled = tuple[Tensor, Tensor] | Iterable[Sequence[Tensor]]
"""Images float32 (N, C, S, S) and labels (N,), or batches of them, as a DataLoader gives."""

_CHANNELS = (1, 3)
_IMAGE_DIMS = 3
"""Of one image; labels have fewer."""
_MOST_BATCHES = 10_000
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
    inputs = [checked_inputs(images) for images, _ in pairs]
    side = preprocessing.image_size
    for batch in inputs:
        if batch.shape[1:] != (preprocessing.channels, side, side):
            raise DataError(
                "Images must be what the network was quantized for, "
                f"(N, {preprocessing.channels}, {side}, {side}); got {tuple(batch.shape)}."
            )
    images = torch.cat(inputs).cpu()
    labels = torch.cat([labels for _, labels in pairs]).cpu().long()
    _check_labels(labels, classes)
    _warn_of_range(images, preprocessing)
    val = _GivenImages(images.permute(0, 2, 3, 1).contiguous().numpy(), labels.numpy())
    none = _GivenImages(np.zeros((0, side, side, preprocessing.channels), np.float32), np.zeros(0, np.int64))
    return ImageData(none, val, classes, preprocessing, "none", 0)


def example_batches(example: Any) -> list[Tensor]:
    """Batches of images without their labels, each float32 (N, C, S, S), all of one (C, S, S).

    Args:
        example: images; images and labels; or batches of either, as a DataLoader gives. Two tensors are
            images and labels if the second has fewer than three dimensions, else two batches.

    Raises:
        DataError: as of ``checked_inputs``; there is no batch, or they are of several shapes.
    """
    labelled = _is_pair(example) and example[1].dim() < _IMAGE_DIMS
    whole = labelled or isinstance(example, Tensor | np.ndarray)
    if not whole and not _gives_batches(example):
        raise DataError(f"Images must be a tensor float32 (N, C, S, S), or batches; {_described(example)}.")
    batches = [_inputs_of(batch) for batch in ([example] if whole else _ending(example))]
    if not batches:
        raise DataError("quantize needs at least one batch of images, which place the clip levels; got none.")
    for batch in batches:
        if batch.shape[1:] != batches[0].shape[1:]:
            raise DataError(
                "Batches of images must be of one size, that of the network; got "
                f"{tuple(batches[0].shape)} and {tuple(batch.shape)}."
            )
    return batches


def _inputs_of(batch: Any) -> Tensor:
    """The images of a batch, which a DataLoader gives as a list, alone or before their labels."""
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    return checked_inputs(first)


def checked_inputs(images: Any) -> Tensor:
    """Inputs float32 (N, C, S, S) of one or three channels, without gradient.

    Raises:
        DataError: they are something else or none, or hold numbers that are not finite.
    """
    if not isinstance(images, Tensor):
        raise DataError(f"Images must be a tensor float32 (N, C, S, S); {_described(images)}.")
    described = f"got {images.dtype} {tuple(images.shape)}".replace("torch.", "")
    if images.is_meta or images.layout != torch.strided:
        how = "on the device meta" if images.is_meta else f"of layout {images.layout}".replace("torch.", "")
        raise DataError(f"Images must be a dense tensor that holds its numbers; {described} {how}. Fill it.")
    if not images.is_floating_point():
        raise DataError(
            f"Images must be float32 (N, C, S, S), normalised as the network wants them; {described}. "
            "Pixels become that by images.float() / 255, minus the mean, divided by the deviation."
        )
    if images.dim() != 4 or images.shape[2] != images.shape[3] or images.shape[1] not in _CHANNELS:
        raise DataError(f"Images must be squares of 1 or 3 channels, (N, C, S, S); {described}.")
    if not images.numel():
        raise DataError(f"There must be at least one image; {described}. Look at what selects them.")
    if not bool(images.isfinite().all()):
        raise DataError("Images must be finite; these hold infinity or NaN.")
    return images.detach().float()


def _batches(labelled: Any) -> Iterable[Any]:
    return _ending(labelled) if _gives_batches(labelled) and not _is_pair(labelled) else [labelled]


def _ending(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, unless they are more than can be kept: an iterator may never end."""
    room, taken = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2, 0
    for count, batch in enumerate(batches):
        images = batch[0] if isinstance(batch, tuple | list) and batch else batch
        taken += images.nbytes if isinstance(images, Tensor) else 0
        if count >= _MOST_BATCHES or taken > room:
            raise DataError(
                f"Batches are kept in memory: {_MOST_BATCHES:,} of them at most, and {room / 1e9:.0f} GB, "
                "half of what this machine has; these are more, or never end. Take some of them: "
                "itertools.islice(batches, 8)."
            )
        yield batch


def _gives_batches(value: Any) -> bool:
    return isinstance(value, Iterable) or hasattr(value, "__getitem__")


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(p, Tensor) for p in value)


def _described(value: Any) -> str:
    """What was given in the place of a tensor, and what makes one of it."""
    arrays = [value, *value] if isinstance(value, tuple | list) else [value]
    fix = "; torch.from_numpy makes a tensor of it" if any(isinstance(a, np.ndarray) for a in arrays) else ""
    return f"got {type(value).__name__}{fix}"


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if not _is_pair(batch):
        raise DataError(
            "Labelled images are a pair of tensors, images (N, C, S, S) and labels (N,), or batches of such "
            f"pairs, as a DataLoader gives; {_described(batch)}."
        )
    images, labels = batch
    if labels.is_meta or labels.layout != torch.strided:
        where = "on the device meta" if labels.is_meta else f"of layout {labels.layout}".replace("torch.", "")
        raise DataError(f"Labels must be a dense tensor that holds its numbers; got one {where}. Fill it.")
    if (
        labels.dim() != 1
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.shape != images.shape[:1]
    ):
        raise DataError(
            f"Labels must be whole numbers, one for each image; got {tuple(labels.shape)} of {labels.dtype} "
            f"for images {tuple(images.shape)}."
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
