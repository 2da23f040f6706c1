"""MixUp and CutMix: torchvision's own, alike for any ranks, workers and starts, with labels that add up."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torchvision.transforms import v2

from saq_qat.data import ImageData, open_data, train_batches
from saq_qat.data.mixing import Mixer
from saq_qat.recipe.schema import Data, Mixing

KINDS = {"mixup": Mixing(mixup=0.4), "cutmix": Mixing(cutmix=1.0), "both": Mixing(mixup=0.4, cutmix=1.0)}
THEIRS: dict[str, Callable[..., Any]] = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
Batch = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def data() -> ImageData:
    section = {"kind": "synthetic", "image_size": 16, "train_size": 50, "val_size": 8, "classes": 5}
    return open_data(TypeAdapter[Data](Data).validate_python({**section, "augmentation": "crop_flip"}), 0)


def epoch(data: ImageData, mixing: Mixing | None, **options: Any) -> list[Batch]:
    return list(train_batches(data, batch_size=8, seed=3, epoch=1, mixing=mixing, **options))


def assert_same(first: list[Batch], second: Iterator[Batch] | list[Batch]) -> None:
    for (images, labels), (other_images, other_labels) in zip(first, second, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_batch_is_what_torchvision_makes_of_it_after_its_seed(kind: str) -> None:
    images, labels = torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    (alpha,) = (a for a in (KINDS[kind].mixup, KINDS[kind].cutmix) if a is not None)
    state = torch.get_rng_state()
    for seed in range(5):
        found = Mixer(KINDS[kind], 5)(images, labels, seed)
        torch.manual_seed(seed)
        chosen = v2.RandomChoice([THEIRS[kind](alpha=alpha, num_classes=5)])
        expected = chosen(images, labels)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    torch.set_rng_state(state)
    Mixer(KINDS[kind], 5)(images, labels, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_are_mixed_in_the_proportion_of_their_labels(data: ImageData) -> None:
    """Against the batches without mixing, in NumPy."""
    kinds = set()
    mixed = epoch(data, KINDS["both"])
    for (images, shares), (plain, labels) in zip(mixed, epoch(data, None), strict=True):
        assert shares.dtype == torch.float32 and shares.shape == (8, 5)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(8))
        before = labels.roll(1)
        differ = (labels != before).nonzero()[:, 0]
        share = shares[differ[0], labels[differ[0]]].item()
        expected = share * np.eye(5)[labels] + (1 - share) * np.eye(5)[before]
        np.testing.assert_allclose(shares.numpy(), expected, atol=1e-6)
        blend = share * plain + (1 - share) * plain.roll(1, 0)
        if torch.allclose(images, blend, atol=1e-5):
            kinds.add("mixup")
            continue
        pasted = (images != plain).any(dim=1)
        everywhere = pasted[:, None].expand_as(images)
        assert torch.equal(images[everywhere], plain.roll(1, 0)[everywhere])
        box = pasted.any(dim=0)
        assert box.float().mean().item() == pytest.approx(1 - share, abs=1e-6)
        kinds.add("cutmix")
    assert kinds == {"mixup", "cutmix"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_mixed_global_batches(data: ImageData, kind: str, world_size: int) -> None:
    ranks = [epoch(data, KINDS[kind], rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = [
        (torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]))
        for parts in zip(*ranks, strict=True)
    ]
    assert_same(joined, epoch(data, KINDS[kind]))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # few cores suffice here
@pytest.mark.parametrize("start", [0, 1, 5])
def test_starts_and_workers_change_nothing(data: ImageData, start: int) -> None:
    whole = epoch(data, KINDS["both"])
    torch.manual_seed(5)
    assert_same(whole[start:], epoch(replace(data, workers=2), KINDS["both"], start_batch=start))


def test_mixing_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="mixup, cutmix or both"):
        Mixing()
    with pytest.raises(ValidationError):
        Mixing(mixup=0.0)
