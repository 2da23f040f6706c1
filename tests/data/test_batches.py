"""Batches: pure functions of their arguments, whole over ranks, alike for any workers, and never a hang."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, multiprocessing

from saq_qat.data import ImageData, open_data, steps_per_epoch, train_batches, val_batches
from saq_qat.data.augment import Augmentation
from saq_qat.data.images import FileImages
from saq_qat.errors import DataError, RecipeError
from saq_qat.recipe.schema import Data

MakeFolder = Callable[..., Path]
Batch = tuple[Tensor, Tensor]
AUGMENTATIONS: list[Augmentation] = ["none", "crop_flip", "resized_crop_flip"]

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # few cores suffice here


def opened(**section: Any) -> ImageData:
    return open_data(TypeAdapter[Data](Data).validate_python(section), 0)


@pytest.fixture
def synthetic() -> ImageData:
    return opened(
        kind="synthetic", image_size=16, train_size=50, val_size=23, classes=5, augmentation="crop_flip"
    )


def assert_same(first: Iterator[Batch] | list[Batch], second: Iterator[Batch] | list[Batch]) -> None:
    for (images, labels), (other_images, other_labels) in zip(first, second, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def test_batches_are_float_planes_and_int64_labels(synthetic: ImageData) -> None:
    batches = list(train_batches(synthetic, batch_size=8, seed=0, epoch=0))
    assert len(batches) == steps_per_epoch(synthetic, 8) == 6
    for images, labels in batches:
        assert (images.dtype, tuple(images.shape)) == (torch.float32, (8, 3, 16, 16))
        assert (labels.dtype, tuple(labels.shape)) == (torch.int64, (8,))
        assert images.is_contiguous()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_seed_and_epoch_decide_and_nothing_else(synthetic: ImageData, augmentation: Augmentation) -> None:
    data = replace(synthetic, augmentation=augmentation)

    def epoch(seed: int, epoch: int) -> list[Batch]:
        return list(train_batches(data, batch_size=8, seed=seed, epoch=epoch))

    first = epoch(0, 0)
    torch.manual_seed(99)
    np.random.seed(99)
    assert_same(first, epoch(0, 0))
    assert not torch.equal(first[0][0], epoch(1, 0)[0][0])
    assert not torch.equal(first[0][0], epoch(0, 1)[0][0])


def test_an_epoch_without_augmentation_shows_each_image_once(synthetic: ImageData) -> None:
    data = replace(synthetic, augmentation="none")
    images = torch.cat([images for images, _ in train_batches(data, batch_size=10, seed=0, epoch=0)])
    assert len({image.numpy().tobytes() for image in images}) == 50


@pytest.mark.parametrize("start", [0, 1, 4, 6])
def test_starting_mid_epoch_continues_it(synthetic: ImageData, start: int) -> None:
    whole = list(train_batches(synthetic, batch_size=8, seed=0, epoch=3))
    assert_same(whole[start:], train_batches(synthetic, batch_size=8, seed=0, epoch=3, start_batch=start))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_global_batches(synthetic: ImageData, world_size: int) -> None:
    whole = train_batches(synthetic, batch_size=8, seed=0, epoch=0)
    ranks = [
        train_batches(synthetic, batch_size=8, seed=0, epoch=0, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    joined = [
        (torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]))
        for parts in zip(*ranks, strict=True)
    ]
    assert_same(whole, joined)


@pytest.mark.parametrize("world_size", [1, 2, 3, 30])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_ranks_validate_each_image_once_and_in_order(
    synthetic: ImageData, world_size: int, batch_size: int
) -> None:
    labels: list[int] = []
    for rank in range(world_size):
        for images, part in val_batches(synthetic, batch_size=batch_size, rank=rank, world_size=world_size):
            assert len(images) == len(part) <= batch_size
            labels += part.tolist()
    assert labels == synthetic.val.labels.tolist()


def test_labels_of_a_batch_are_a_copy(synthetic: ImageData) -> None:
    _, labels = next(val_batches(synthetic, batch_size=4))
    before = synthetic.val.labels.copy()
    labels.zero_()
    assert np.array_equal(synthetic.val.labels, before)


def test_fewer_images_than_a_batch_are_refused(synthetic: ImageData) -> None:
    with pytest.raises(DataError, match=r"50 images and train\.batch_size 51"):
        train_batches(synthetic, batch_size=51, seed=0, epoch=0)


def test_a_batch_that_does_not_divide_among_ranks_is_refused(synthetic: ImageData) -> None:
    with pytest.raises(RecipeError, match="multiple of the 3 processes; got 8"):
        train_batches(synthetic, batch_size=8, seed=0, epoch=0, world_size=3)


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_batches(make_folder: MakeFolder, workers: int) -> None:
    data = opened(
        kind="imagefolder", root=str(make_folder()), image_size=12, augmentation="resized_crop_flip"
    )
    parallel = replace(data, workers=workers)
    state = torch.get_rng_state()
    assert_same(
        train_batches(data, batch_size=2, seed=0, epoch=1, start_batch=1),
        train_batches(parallel, batch_size=2, seed=0, epoch=1, start_batch=1),
    )
    assert_same(val_batches(data, batch_size=4), val_batches(parallel, batch_size=4))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_the_cache_changes_no_batch(make_folder: MakeFolder, augmentation: Augmentation) -> None:
    data = opened(kind="imagefolder", root=str(make_folder()), image_size=12, augmentation=augmentation)
    cached = data.train
    assert isinstance(cached, FileImages)
    bare = replace(data, train=FileImages(cached.paths, cached.labels, cached.reader, cache_bytes=0))
    for epoch in (0, 1):
        assert_same(
            train_batches(data, batch_size=4, seed=0, epoch=epoch),
            train_batches(bare, batch_size=4, seed=0, epoch=epoch),
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_with_and_without_workers(make_folder: MakeFolder, workers: int) -> None:
    root = make_folder()
    (root / "val" / "bee" / "1.png").write_bytes(b"")
    data = opened(kind="imagefolder", root=str(root), image_size=12, workers=workers)
    data = replace(data, val=FileImages(data.val.paths, data.val.labels, data.val.reader, cache_bytes=0))  # type: ignore[attr-defined]  # these are FileImages
    with pytest.raises(DataError) as caught:
        list(val_batches(data, batch_size=1))
    assert str(caught.value).startswith(
        f"'{root / 'val' / 'bee' / '1.png'}' is refused. Not a readable image"
    )
    assert "Traceback" not in str(caught.value)


@pytest.mark.timeout(60)
def test_a_killed_worker_is_a_data_error_at_the_next_batch(synthetic: ImageData) -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    batches = train_batches(replace(synthetic, workers=1), batch_size=2, seed=0, epoch=0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    # Dying must not disturb the training step that runs meanwhile.
    time.sleep(0.2)
    with pytest.raises(DataError, match="A loader process died"):
        list(batches)
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_an_abandoned_epoch_leaves_no_process_behind(synthetic: ImageData) -> None:
    batches = train_batches(replace(synthetic, workers=2), batch_size=2, seed=0, epoch=0)
    next(batches)
    del batches
    assert not multiprocessing.active_children()
