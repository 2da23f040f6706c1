"""Batches as pure functions of (seed, epoch, position): the same with any workers, and after resuming."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from saq_qat.data.counter import Stream, seeds, shuffled
from saq_qat.data.epoch import Batch, ResidentEpoch, TrainEpoch, ValPart
from saq_qat.data.mixing import Mixer
from saq_qat.data.open import ImageData
from saq_qat.data.transforms import network_input
from saq_qat.data.workers import prepared_batches
from saq_qat.errors import DataError, RecipeError
from saq_qat.recipe.schema import Mixing

__all__ = ["steps_per_epoch", "train_batches", "val_batches"]

_CPU = torch.device("cpu")


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
    device: torch.device = _CPU,
    mixing: Mixing | None = None,
) -> Iterator[Batch]:
    """The batches of an epoch from `start_batch` on: float32 [n, 3, S, S] normalised, int64 [n], on `device`.

    Images that live decoded in memory lie on a GPU as a whole and are augmented there; others come to it in
    pinned memory. Both are the same to the last bit.

    With `mixing`, labels become float32 [n, classes]; what is drawn for it depends on (seed, epoch, batch),
    and each image is mixed with the one before it in the global batch, whichever rank has it.

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
    # In a batch that one rank has as a whole, the first image's neighbour is there already.
    leading = mixing is not None and world_size > 1
    make = TrainEpoch(
        images=image_data.train,
        order=shuffled(Stream.ORDER, seed, epoch, len(image_data.train)),
        batch_size=batch_size,
        share=slice(rank * part, (rank + 1) * part),
        augmentation=image_data.augmentation,
        image_size=image_data.preprocessing.image_size,
        seed=seed,
        epoch=epoch,
        policy=image_data.policy,
        leading=leading,
    )
    squares = _resident(image_data, device)
    prepare = make if squares is None else ResidentEpoch(make, squares)
    batches = _normalised(image_data, prepare, range(start_batch, steps), device)
    if mixing is None:
        return batches
    drawn = seeds(Stream.MIXING, seed, epoch, np.arange(start_batch, steps)).tolist()
    return Mixer(mixing, len(image_data.classes)).batches(batches, drawn, leading=int(leading))


def val_batches(
    image_data: ImageData,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device = _CPU,
) -> Iterator[Batch]:
    """The validation images in order: float32 [n, 3, S, S] normalised, int64 [n], n <= batch_size.

    Each rank gets a contiguous part; together they cover every image exactly once, without padding. A rank
    gets no batch at all if there are fewer images than ranks. Raises DataError for damaged images or a dead
    worker.
    """
    total = len(image_data.val)
    start, stop = total * rank // world_size, total * (rank + 1) // world_size
    make = ValPart(image_data.val, start, stop, batch_size)
    return _normalised(image_data, make, range(-(-(stop - start) // batch_size)), device)


def _resident(image_data: ImageData, device: torch.device) -> Tensor | None:
    """All training images on a GPU, copied there once; None on the CPU, or if they would not fit."""
    if device.type == "cpu" or image_data.augmentation == "resized_crop_flip" or image_data.policy:
        return None
    return image_data.train.on_device(device)


def _normalised(
    image_data: ImageData,
    prepare: TrainEpoch | ResidentEpoch | ValPart,
    batches: range,
    device: torch.device,
) -> Iterator[Batch]:
    # What lies on a device already has nothing that workers could do.
    workers = 0 if isinstance(prepare, ResidentEpoch) else image_data.workers
    if workers > 0 and not isinstance(prepare, ResidentEpoch):
        prepare.images.preload(workers)
    prepared = prepared_batches(prepare, batches, workers, pinned=device.type == "cuda")
    for pixels, labels in prepared:
        there = pixels.to(device, non_blocking=True)
        yield network_input(there, image_data.preprocessing), labels.to(device, non_blocking=True)
