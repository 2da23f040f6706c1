"""Opening every kind of data: splits, sizes, defaults, limits, and sizes that contradict each other."""

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torchvision import datasets

from saq_qat.data import ImageData, open_data, val_batches
from saq_qat.data.batches import train_batches
from saq_qat.data.images import FileImages, MemoryImages
from saq_qat.errors import DataError, RecipeError
from saq_qat.recipe.schema import Data, Synthetic

MakeFolder = Callable[..., Path]


def opened(seed: int = 0, /, **section: Any) -> ImageData:
    return open_data(TypeAdapter[Data](Data).validate_python(section), seed)


def all_val(data: ImageData) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*val_batches(data, batch_size=64), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_digits_are_split_evenly_and_normalised(size: int) -> None:
    data = opened(kind="digits", image_size=size)
    assert (len(data.train), len(data.val)) == (1437, 360)
    assert data.classes == tuple("0123456789")
    assert np.bincount(data.val.labels).min() >= 35
    images, _ = all_val(data)
    assert images.shape == (360, 3, size, size)
    assert abs(images.mean()) < 0.05 and 0.8 < images.std() < 1.25
    assert torch.equal(images[:, 0], images[:, 2])


def test_what_is_held_out_is_judged_and_nothing_else_is() -> None:
    whole = opened(kind="digits")
    first, second = opened(0, kind="digits", held_out=200), opened(7, kind="digits", held_out=200)
    assert torch.equal(all_val(first)[0], all_val(second)[0])
    assert (len(first.train), len(first.val)) == (1237, 200)
    images = {image.numpy().tobytes() for image, _ in (whole.train[i] for i in range(1437))}
    kept = [first.train[i][0].numpy().tobytes() for i in range(1237)]
    judged = [first.val[i][0].numpy().tobytes() for i in range(200)]
    assert {*kept, *judged} == images


def test_images_of_a_folder_are_held_out_from_every_class(make_folder: MakeFolder) -> None:
    root = make_folder(train=4, val=2)
    data = opened(kind="imagefolder", root=str(root), image_size=16, held_out=3)
    assert np.bincount(data.val.labels).tolist() == [1, 1, 1]
    assert np.bincount(data.train.labels).tolist() == [3, 3, 3]
    with pytest.raises(DataError, match="held_out is 12"):
        opened(kind="imagefolder", root=str(root), image_size=16, held_out=12)


def test_the_digits_split_does_not_depend_on_the_seed() -> None:
    first, second = opened(0, kind="digits"), opened(7, kind="digits")
    assert torch.equal(all_val(first)[0], all_val(second)[0])


def test_synthetic_images_are_the_same_everywhere_and_learnable() -> None:
    data = opened(kind="synthetic", image_size=16, train_size=200, val_size=100, classes=4)
    again = opened(3, kind="synthetic", image_size=16, train_size=200, val_size=100, classes=4)
    images, labels = all_val(data)
    assert torch.equal(images, all_val(again)[0])
    assert set(labels.tolist()) == {0, 1, 2, 3}
    train = torch.stack([data.train[index][0] for index in range(200)]).float().flatten(1)
    train = (train / 255 - 0.5) / 0.25
    torch.manual_seed(0)
    network = nn.Linear(train.shape[1], 4)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    targets = torch.from_numpy(data.train.labels)
    for _ in range(30):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(train), targets))
        optimizer.step()
    assert (network(images.flatten(1)).argmax(1) == labels).float().mean() > 0.9


@pytest.mark.parametrize("key", ["train_size", "val_size", "image_size"])
def test_what_needs_more_memory_than_there_is_is_named(key: str) -> None:
    size = 4096 if key == "image_size" else 10**12
    others = {"train_size": 10**5} if key == "image_size" else {}
    data = Synthetic(kind="synthetic", **{**others, key: size})  # type: ignore[arg-type]  # numbers all
    with pytest.raises(RecipeError, match=rf"^data\.{key}: .*Lower data\.{key}"):
        open_data(data, 0)


def test_limits_are_stratified_and_only_training_follows_the_seed() -> None:
    def limited(seed: int) -> ImageData:
        return opened(seed, kind="digits", train_limit=50, val_limit=20)

    first, second = limited(0), limited(1)
    assert np.bincount(first.train.labels).tolist() == [5] * 10
    assert torch.equal(all_val(first)[0], all_val(second)[0])
    assert isinstance(first.train, MemoryImages) and isinstance(second.train, MemoryImages)
    assert not np.array_equal(first.train.pixels, second.train.pixels)


def test_limits_beyond_the_data_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.train_limit is 5000.*1437"):
        opened(kind="digits", train_limit=5000)


def test_mean_and_std_can_be_set() -> None:
    data = opened(kind="digits", mean=(0.0, 0.5, 1.0), std=(1.0, 1.0, 2.0))
    assert (data.preprocessing.mean, data.preprocessing.std) == ((0.0, 0.5, 1.0), (1.0, 1.0, 2.0))


@pytest.mark.parametrize("key", ["mean", "std"])
def test_mean_and_std_need_a_number_per_channel(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"data\.{key} must have 3 numbers"):
        opened(**{"kind": "digits", key: (0.5,)})


def test_items_are_uint8_planes_with_a_label() -> None:
    image, label = opened(kind="digits").train[0]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 16, 16))
    assert isinstance(label, int)
    with pytest.raises(IndexError):
        opened(kind="digits").train[1437]


def test_folder_defaults_to_imagenet_preprocessing(make_folder: MakeFolder) -> None:
    root = str(make_folder())
    assert opened(kind="imagefolder", root=root).preprocessing.resize == 256
    data = opened(kind="imagefolder", root=root, image_size=14)
    assert data.preprocessing.resize == 16
    assert data.preprocessing.mean == (0.485, 0.456, 0.406)
    assert data.classes == ("ant", "bee", "cat")
    assert all_val(data)[0].shape == (6, 3, 14, 14)


def test_folder_images_are_decoded_when_read_and_then_kept(make_folder: MakeFolder) -> None:
    root = make_folder(train=1, val=1)
    data = opened(kind="imagefolder", root=str(root), image_size=8)
    before = data.train[0][0]
    (root / "train" / "ant" / "0.png").write_bytes(b"")
    assert torch.equal(data.train[0][0], before)
    (root / "train" / "bee" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"bee/0\.png"):
        data.train[1]


def test_images_are_the_same_with_and_without_cache(make_folder: MakeFolder) -> None:
    data = opened(kind="imagefolder", root=str(make_folder()), image_size=8)
    cached = data.train
    assert isinstance(cached, FileImages)
    bare = FileImages(cached.paths, cached.labels, 8, cached.resize, cache_bytes=0)
    every = np.arange(len(cached))
    some = bare.read_batch(every[::3])
    assert np.array_equal(cached.read_batch(every[::3]), some)
    cached.preload(threads=2)
    held = cached.in_memory()
    assert held is not None and np.array_equal(held, bare.read_batch(every))
    assert bare.in_memory() is None
    for index in range(len(cached)):
        assert np.array_equal(cached.read(index), bare.read(index))


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_missing_cifar_names_the_expected_folder(kind: str, tmp_path: Path) -> None:
    folder = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[kind]
    with pytest.raises(DataError, match=rf"{folder}.*Nothing is downloaded"):
        opened(kind=kind, root=str(tmp_path))


def test_a_kind_that_nobody_reads_is_refused_not_replaced() -> None:
    unknown: Any = SimpleNamespace(kind="sketches")
    with pytest.raises(RecipeError, match="nothing reads data of the kind 'sketches'"):
        open_data(unknown, 0)


def write_cifar10(root: Path, per_batch: int) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    names = [name for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list]
    for number, name in enumerate(names):
        pixels = np.full((per_batch, 3072), number, np.uint8)
        labels = [index % 10 for index in range(per_batch)]
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{n}" for n in range(10)]}))


def test_altered_cifar_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    write_cifar10(tmp_path, 10)
    with pytest.raises(DataError, match="missing, incomplete or changed"):
        opened(kind="cifar10", root=str(tmp_path))


def test_cifar_is_read_with_its_classes_and_its_own_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path, 10)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = opened(kind="cifar10", root=str(tmp_path))
    assert (len(data.train), len(data.val)) == (50, 10)
    assert data.classes[0] == "class0"
    assert torch.equal(data.train[49][0], torch.full((3, 32, 32), 4, dtype=torch.uint8))
    assert data.preprocessing.mean == (0.4914, 0.4822, 0.4465)
    assert opened(kind="cifar10", root=str(tmp_path), image_size=16).train[0][0].shape == (3, 16, 16)


def test_crops_of_cifar_come_from_its_own_pixels_and_only_what_is_judged_is_enlarged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path, 10)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    crops = {"augmentation": "resized_crop_flip", "image_size": 64}
    for held_out in (None, 5):
        data = opened(kind="cifar10", root=str(tmp_path), held_out=held_out, **crops)
        assert data.train[0][0].shape == (3, 32, 32) and data.val[0][0].shape == (3, 64, 64)
        ((pixels, _),) = itertools.islice(train_batches(data, batch_size=4, seed=0, epoch=0), 1)
        assert pixels.shape == (4, 3, 64, 64)
