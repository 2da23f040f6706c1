"""RandAugment and random erasing: torchvision's own, drawn for each image by itself."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torchvision.transforms import InterpolationMode, v2

from saq_qat.data import open_data, train_batches, val_batches
from saq_qat.data.policy import Policy
from saq_qat.data.transforms import Pixels
from saq_qat.recipe.schema import Data, RandAugment, RandomErasing

MEAN = (0.4, 0.5, 0.6)
SEEDS = np.arange(40, 60, dtype=np.uint64)


def images(count: int = 20) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, 24, 24, 3), np.uint8)


def policy(rand_augment: bool = True, probability: float | None = 0.5) -> Policy:
    erasing = None if probability is None else RandomErasing(probability=probability)
    return Policy(RandAugment(operations=3, magnitude=12) if rand_augment else None, erasing, MEAN)


def test_each_image_is_what_torchvision_makes_of_it_after_its_seed() -> None:
    theirs = v2.RandAugment(3, 12, interpolation=InterpolationMode.BILINEAR)
    erase = v2.RandomErasing(p=0.5, value=[102, 128, 153])
    found = policy()(images(), SEEDS)
    for image, seed, result in zip(images(), SEEDS.tolist(), found, strict=True):
        torch.manual_seed(seed)
        changed = torch.from_numpy(np.array(theirs(Image.fromarray(image)))).permute(2, 0, 1)
        assert np.array_equal(result, erase(changed).permute(1, 2, 0).numpy())


def test_an_image_depends_on_its_seed_alone() -> None:
    together = policy()(images(), SEEDS)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    for index in (3, 0, 19):
        alone = policy()(images()[index : index + 1], SEEDS[index : index + 1])
        assert np.array_equal(alone[0], together[index])
    assert not np.array_equal(policy()(images(), SEEDS + np.uint64(100)), together)


def test_no_generator_is_left_elsewhere_and_no_image_is_touched() -> None:
    given, state = images(), torch.get_rng_state()
    policy()(given, SEEDS)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(given, images())


def test_erased_rectangles_have_the_mean_colour_and_the_published_size() -> None:
    given = np.zeros((300, 40, 40, 3), np.uint8)
    found = policy(rand_augment=False, probability=1.0)(given, np.arange(300, dtype=np.uint64))
    erased = (found == np.array([102, 128, 153])).all(axis=3)
    assert (erased | (found == 0).all(axis=3)).all()
    share = erased.mean(axis=(1, 2))
    assert 0.01 < share.min() < 0.05 and 0.3 < share.max() < 0.36
    kept = policy(rand_augment=False, probability=0.25)(given, np.arange(300, dtype=np.uint64))
    assert 0.15 < (kept.reshape(300, -1).max(axis=1) > 0).mean() < 0.35


def opened(**section: Any) -> Any:
    recipe = {"kind": "synthetic", "image_size": 16, "train_size": 24, "val_size": 8, **section}
    return open_data(TypeAdapter[Data](Data).validate_python(recipe), 0)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # few cores suffice here
def test_batches_with_a_policy_are_functions_of_seed_epoch_and_image() -> None:
    changed = {"rand_augment": {}, "random_erasing": {"probability": 0.5}, "augmentation": "crop_flip"}

    def epoch(number: int, **more: Any) -> list[torch.Tensor]:
        data = opened(**changed, **more)
        return [batch for batch, _ in train_batches(data, batch_size=8, seed=3, epoch=number)]

    first = torch.cat(epoch(0))
    torch.manual_seed(9)
    assert torch.equal(first, torch.cat(epoch(0, workers=2)))
    data = opened(**changed)
    later = [batch for batch, _ in train_batches(data, batch_size=8, seed=3, epoch=0, start_batch=2)]
    assert torch.equal(later[0], first[16:])
    assert not torch.equal(first, torch.cat(epoch(1)))
    ranks = [
        torch.cat([b for b, _ in train_batches(data, batch_size=8, seed=3, epoch=0, rank=r, world_size=2)])
        for r in (0, 1)
    ]
    whole = torch.stack([part.reshape(3, 4, 3, 16, 16) for part in ranks], dim=1).reshape(first.shape)
    assert torch.equal(whole, first)


def test_validation_images_are_left_alone() -> None:
    plain, changed = opened(), opened(rand_augment={}, random_erasing={"probability": 1.0})
    pairs = zip(val_batches(plain, batch_size=8), val_batches(changed, batch_size=8), strict=True)
    assert all(torch.equal(one[0], other[0]) for one, other in pairs)


@pytest.mark.parametrize(
    "section",
    [
        {"rand_augment": {"magnitude": 31}},
        {"rand_augment": {"operations": 0}},
        {"random_erasing": {"probability": 0.0}},
        {"random_erasing": {"probability": 1.1}},
        {"random_erasing": {"scale": 0.1}},
    ],
)
def test_what_torchvision_cannot_do_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        opened(**section)
