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
from saq_qat.data.epoch import ResidentEpoch, TrainEpoch
from saq_qat.data.images import FileImages, MemoryImages
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


def uncached(images: FileImages) -> FileImages:
    return FileImages(images.paths, images.labels, images.image_size, images.resize, cache_bytes=0)


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


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_the_cache_changes_no_batch(make_folder: MakeFolder, augmentation: Augmentation) -> None:
    data = opened(kind="imagefolder", root=str(make_folder()), image_size=12, augmentation=augmentation)
    cached = data.train
    assert isinstance(cached, FileImages)
    bare = replace(data, train=uncached(cached))
    for epoch in (0, 1):
        assert_same(
            train_batches(data, batch_size=4, seed=0, epoch=epoch),
            train_batches(bare, batch_size=4, seed=0, epoch=epoch),
        )


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
@pytest.mark.parametrize("rank", [0, 1])
def test_an_epoch_of_images_on_a_device_is_that_of_the_images(
    synthetic: ImageData, augmentation: Augmentation, rank: int
) -> None:
    """The device is the CPU here, and computes as a GPU would."""
    epoch = TrainEpoch(
        synthetic.train, np.arange(50)[::-1].copy(), 12, slice(6 * rank, 6 * rank + 6), augmentation, 16, 3, 2
    )
    resident = synthetic.train.on_device(torch.device("cpu"))
    assert resident is not None and resident is synthetic.train.on_device(torch.device("cpu"))
    assert_same([epoch(batch) for batch in range(4)], [ResidentEpoch(epoch, resident)(n) for n in range(4)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_on_a_gpu_are_those_on_the_cpu(
    synthetic: ImageData, augmentation: Augmentation, workers: int
) -> None:
    data = replace(synthetic, augmentation=augmentation, workers=workers)
    there = train_batches(data, batch_size=8, seed=0, epoch=1, device=torch.device("cuda"))
    on_cpu = [(images.cpu(), labels.cpu()) for images, labels in there]
    assert_same(on_cpu, train_batches(replace(data, workers=0), batch_size=8, seed=0, epoch=1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_with_and_without_workers(make_folder: MakeFolder, workers: int) -> None:
    root = make_folder()
    (root / "val" / "bee" / "1.png").write_bytes(b"")
    data = opened(kind="imagefolder", root=str(root), image_size=12, workers=workers)
    assert isinstance(data.val, FileImages)
    data = replace(data, val=uncached(data.val))
    with pytest.raises(DataError) as caught:
        list(val_batches(data, batch_size=1))
    assert str(caught.value).startswith(
        f"'{root / 'val' / 'bee' / '1.png'}' is refused. Not a readable image"
    )
    assert "Traceback" not in str(caught.value)


@pytest.mark.timeout(60)
def test_a_killed_worker_disturbs_no_step_and_its_batches_come_all_the_same(synthetic: ImageData) -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    batches = train_batches(replace(synthetic, workers=1), batch_size=2, seed=0, epoch=0)
    first = next(batches)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    # Dying must not disturb the training step that runs meanwhile.
    time.sleep(0.2)
    with pytest.warns(UserWarning, match="by signal 9"):
        found = [first, *batches]
    assert_same(found, train_batches(synthetic, batch_size=2, seed=0, epoch=0))
    assert signal.getsignal(signal.SIGCHLD) is handler


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_an_epoch_of_cifars_size_costs_a_small_part_of_its_steps(augmentation: Augmentation) -> None:
    """A step of ResNet-20 on 128 images takes some 100 ms on two threads, preparing them under a twentieth.

    The median of an epoch's batches, so that other work on the machine does not decide.
    """
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    images = MemoryImages(pixels, random.integers(0, 10, 50_000))
    data = opened(kind="synthetic", image_size=32, augmentation=augmentation)
    batches = train_batches(replace(data, train=images), batch_size=128, seed=0, epoch=0)
    seconds = []
    start = time.perf_counter()
    for _ in batches:
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    assert len(seconds) == 390
    assert np.median(seconds) < 0.005


def test_an_abandoned_epoch_leaves_no_process_behind(synthetic: ImageData) -> None:
    batches = train_batches(replace(synthetic, workers=2), batch_size=2, seed=0, epoch=0)
    next(batches)
    del batches
    assert not multiprocessing.active_children()
