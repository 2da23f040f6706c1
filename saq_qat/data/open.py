"""From the recipe's `data` section to images that can be read by index."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Never

import numpy as np
from numpy.typing import NDArray

from saq_qat.data.augment import Augmentation
from saq_qat.data.folder import find_images
from saq_qat.data.images import FileImages, Images, MemoryImages, WholeFileImages
from saq_qat.data.parquet import read_parquet
from saq_qat.data.policy import Policy
from saq_qat.data.sources import Arrays, cifar_arrays, digits_arrays, squares, synthetic_arrays
from saq_qat.data.subset import held_out, limited
from saq_qat.data.transforms import ImageFile
from saq_qat.errors import RecipeError
from saq_qat.recipe.schema import Cifar, Data, Digits, ImageFolder, Memory, Parquet, Synthetic
from saq_qat_runtime.bundle.records import Preprocessing

__all__ = ["ImageData", "open_data"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_DIGITS = 1797
_CIFAR_TRAIN, _CIFAR_VAL = 50_000, 10_000
_COPIES_OF_SYNTHETIC = 24
"""Of a byte for each value of a pixel, at once while they are made: two arrays of float64, sums and bytes."""


@dataclass(frozen=True)
class ImageData:
    """The images of a recipe. Reading may fill a cache; batches do not depend on it.

    `train` and `val` give (uint8 [3, H, W], label); the label is an index into `classes`. `workers`
    processes prepare batches, 0 for none. `policy` changes training images behind their augmentation.
    """

    train: Images
    val: Images
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    augmentation: Augmentation
    workers: int
    policy: Policy | None = None


def open_data(data: Data, seed: int) -> ImageData:
    """Open the images a recipe names; files of an image folder are found now and decoded when first read.

    With `train_limit`, `seed` chooses the training images; `val_limit` takes the same images for every
    seed, so that seeds can be compared. Raises DataError if images are missing, RecipeError if sizes
    contradict each other or need more memory than there is, or for a kind that nothing reads.
    """
    _check_fits(data)
    match data:
        case ImageFolder():
            return _open_folder(data, seed)
        case Parquet():
            return _open_parquet(data, seed)
        case Digits():
            return _open_arrays(data, digits_arrays(data), seed)
        case Cifar():
            return _open_arrays(data, cifar_arrays(data), seed)
        case Synthetic():
            return _open_arrays(data, synthetic_arrays(data), seed)
        case Memory():
            raise RecipeError(
                "data.kind: memory: these images were in the memory of the program that trained the network, "
                "and are gone with it. Verify there, with saq_qat.verify, or name images that files hold."
            )
    raise _unread(data)


def _check_fits(data: Data) -> None:
    """Images that live decoded in memory must fit it, or the system would end this process without a word."""
    match data:
        case Digits():
            count, copies = _DIGITS, 2
        case Synthetic():
            count, copies = data.train_size + data.val_size, _COPIES_OF_SYNTHETIC
        case Cifar():
            count, copies = (data.train_limit or _CIFAR_TRAIN) + (data.val_limit or _CIFAR_VAL), 2
        case _:
            return
    needed = copies * count * 3 * data.image_size**2
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        key = _largest(data, count)
        raise RecipeError(
            f"data.{key}: {count} images of {data.image_size}x{data.image_size} pixels are kept in "
            f"memory and need {needed / 1e9:.0f} GB; this machine has {there / 1e9:.0f} GB. Lower "
            f"data.{key}, or keep the images as files (data.kind: imagefolder)."
        )


def _largest(data: Synthetic | Digits | Cifar, count: int) -> str:
    """The key that the memory is most due to: the pixels of an image, or the number of images."""
    if not isinstance(data, Synthetic) or data.image_size**2 >= count:
        return "image_size"
    return "train_size" if data.train_size >= data.val_size else "val_size"


def _unread(data: Never) -> RecipeError:
    """Of a kind that the schema has and nobody reads; the type checker finds it, as this does."""
    kind = getattr(data, "kind", type(data).__name__)
    return RecipeError(
        f"data.kind: nothing reads data of the kind {kind!r}; saq_qat/data/open.py opens them."
    )


def _open_arrays(data: Data, arrays: Arrays, seed: int) -> ImageData:
    if data.held_out is not None:
        arrays = _holding_out(arrays, data.held_out)
    train = limited(arrays.train_labels, data.train_limit, seed, "train_limit")
    val = limited(arrays.val_labels, data.val_limit, 0, "val_limit")
    preprocessing = _preprocessing(data, None, arrays.mean, arrays.std)
    whole = data.augmentation == "resized_crop_flip"
    pixels = arrays.train_pixels[train]
    return ImageData(
        MemoryImages(pixels if whole else squares(pixels, data.image_size), arrays.train_labels[train]),
        MemoryImages(squares(arrays.val_pixels[val], data.image_size), arrays.val_labels[val]),
        arrays.classes,
        preprocessing,
        data.augmentation,
        data.workers,
        Policy.of(data, preprocessing.mean),
    )


@dataclass(frozen=True)
class _Files:
    """Images of a split that are decoded when they are read, and their labels int64 [N]."""

    files: Sequence[ImageFile]
    labels: NDArray[np.int64]

    def limited(self, limit: int | None, seed: int, key: str) -> "_Files":
        return self.chosen(limited(self.labels, limit, seed, key))

    def chosen(self, indices: NDArray[np.int64]) -> "_Files":
        return _Files([self.files[index] for index in indices], self.labels[indices])


def _open_folder(data: ImageFolder, seed: int) -> ImageData:
    resize = data.resize if data.resize is not None else round(data.image_size * 8 / 7)
    train, val, classes = find_images(Path(data.root), data.val_folder)
    splits = _Files(train.paths, train.labels), _Files(val.paths, val.labels)
    return _open_files(data, *splits, classes, resize, seed)


def _open_parquet(data: Parquet, seed: int) -> ImageData:
    train, val, classes = read_parquet(data)
    splits = _Files(train.images, train.labels), _Files(val.images, val.labels)
    return _open_files(data, *splits, classes, data.resize, seed)


def _open_files(
    data: ImageFolder | Parquet,
    train: _Files,
    val: _Files,
    classes: tuple[str, ...],
    resize: int | None,
    seed: int,
) -> ImageData:
    if data.held_out is not None:
        kept, judged = held_out(train.labels, data.held_out)
        train, val = train.chosen(kept), train.chosen(judged)
    train = train.limited(data.train_limit, seed, "train_limit")
    val = val.limited(data.val_limit, 0, "val_limit")
    preprocessing = _preprocessing(data, resize, _IMAGENET_MEAN, _IMAGENET_STD)
    whole = data.augmentation == "resized_crop_flip"
    return ImageData(
        WholeFileImages(train.files, train.labels)
        if whole
        else FileImages(train.files, train.labels, data.image_size, resize),
        FileImages(val.files, val.labels, data.image_size, resize),
        classes,
        preprocessing,
        data.augmentation,
        data.workers,
        Policy.of(data, preprocessing.mean),
    )


def _holding_out(arrays: Arrays, count: int) -> Arrays:
    kept, judged = held_out(arrays.train_labels, count)
    return replace(
        arrays,
        train_pixels=arrays.train_pixels[kept],
        train_labels=arrays.train_labels[kept],
        val_pixels=arrays.train_pixels[judged],
        val_labels=arrays.train_labels[judged],
    )


def _preprocessing(
    data: Data, resize: int | None, mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing:
    channels = 3
    for key, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) != channels:
            raise RecipeError(
                f"data.{key} must have {channels} numbers, one for each channel; got {len(values)}."
            )
    return Preprocessing(data.image_size, resize, channels, data.mean or mean, data.std or std)
