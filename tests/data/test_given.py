"""Images of a program's own, as the validation images of a proof: the tensors themselves, or a refusal."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from saq_qat.data.batches import val_batches
from saq_qat.data.given import example_batches, given_images
from saq_qat.data.sample import sample_validation
from saq_qat.errors import DataError
from saq_qat_runtime.bundle.records import Preprocessing

CLASSES = ("a", "b", "c")
SETTINGS = Preprocessing(4, None, 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


def inputs(count: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(count, 3, 4, 4, generator=generator)
    mean, std = (torch.tensor(n).view(3, 1, 1) for n in (SETTINGS.mean, SETTINGS.std))
    return (pixels - mean) / std, torch.arange(count) % 3


def test_the_network_is_given_the_very_tensors() -> None:
    images, labels = inputs()
    batches = list(val_batches(given_images((images, labels), CLASSES, SETTINGS), batch_size=3))
    assert torch.equal(torch.cat([batch for batch, _ in batches]), images)
    assert torch.equal(torch.cat([of for _, of in batches]), labels)
    assert all(batch.is_contiguous() for batch, _ in batches)


def test_batches_of_a_loader_are_the_same_images() -> None:
    images, labels = inputs()
    loader = DataLoader(TensorDataset(images, labels), batch_size=2)
    data = given_images(loader, CLASSES, SETTINGS)
    ((found, of),) = val_batches(data, batch_size=7)
    assert torch.equal(found, images) and torch.equal(of, labels)


def test_two_batches_are_no_pair_of_images_and_labels() -> None:
    images, labels = inputs(4)
    data = given_images([(images[:2], labels[:2]), (images[2:], labels[2:])], CLASSES, SETTINGS)
    assert torch.equal(next(iter(val_batches(data, batch_size=4)))[0], images)


def test_a_sample_of_them_is_of_all_classes() -> None:
    images, labels = inputs()
    sample = sample_validation(given_images((images, labels), CLASSES, SETTINGS), 3)
    ((found, of),) = val_batches(sample, batch_size=3)
    assert sorted(of.tolist()) == [0, 1, 2]
    assert all(any(torch.equal(image, own) for own in images) for image in found)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
            torch.zeros(2).long(),
            r"float32 .*got uint8 \(2, 3, 4, 4\)",
        ),
        (torch.zeros(2, 3, 4, 5), torch.zeros(2).long(), r"squares of 1 or 3 channels"),
        (torch.zeros(2, 4, 4, 3), torch.zeros(2).long(), r"squares of 1 or 3 channels"),
        (
            torch.zeros(2, 3, 5, 5),
            torch.zeros(2).long(),
            r"quantized for, \(N, 3, 4, 4\); got \(2, 3, 5",
        ),
        (torch.zeros(0, 3, 4, 4), torch.zeros(0).long(), r"at least one image; got float32 \(0, 3, 4, 4\)"),
        (torch.full((2, 3, 4, 4), float("nan")), torch.zeros(2).long(), "must be finite"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(3).long(), r"one for each image; got \(3,\)"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 10), "whole numbers"),
        (torch.zeros(2, 3, 4, 4), torch.tensor([0, 3]), "0 to 2, the places of the logits; got 3"),
    ],
)
def test_what_is_no_image_or_label_is_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        given_images((images, labels), CLASSES, SETTINGS)


def test_no_images_and_no_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="none were given"):
        given_images([], CLASSES, SETTINGS)
    with pytest.raises(DataError, match="a pair of tensors"):
        given_images([inputs()[0]], CLASSES, SETTINGS)  # type: ignore[list-item]  # wrong on purpose


def test_inputs_that_no_picture_becomes_are_warned_of() -> None:
    images, labels = inputs()
    plain = Preprocessing(4, None, 3, (0.0,) * 3, (1.0,) * 3)
    with pytest.warns(UserWarning, match=r"made of pixels from -2\.\d+ to 3\.\d+.*mean= and std="):
        given_images((images, labels), CLASSES, plain)


def test_arrays_and_images_of_several_sizes_are_refused() -> None:
    images, labels = inputs()
    with pytest.raises(DataError, match=r"got tuple; torch\.from_numpy"):
        given_images([(images.numpy(), labels.numpy())], CLASSES, SETTINGS)  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(DataError, match=r"got ndarray; torch\.from_numpy"):
        given_images((images.numpy(), labels.numpy()), CLASSES, SETTINGS)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(DataError, match="got int"):
        given_images(3, CLASSES, SETTINGS)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(DataError, match=r"quantized for.*got \(1, 3, 5, 5\)"):
        other = (torch.zeros(1, 3, 5, 5), labels[:1])
        given_images([(images, labels), other], CLASSES, SETTINGS)


def test_an_example_may_have_labels_which_are_left_out() -> None:
    images, labels = inputs()
    alone, pairs = TensorDataset(images), TensorDataset(images, labels)
    for whole in (images, (images, labels), [images, labels.view(-1, 1)], [(images, labels)]):
        (found,) = example_batches(whole)
        assert torch.equal(found, images)
    parts = [images[:3], images[3:6], images[6:]]
    for several in (parts, DataLoader(alone, 3), DataLoader(pairs, 3), iter(parts)):
        batches = example_batches(several)
        assert [len(batch) for batch in batches] == [3, 3, 1] and torch.equal(torch.cat(batches), images)
    assert len(example_batches((images, images))) == 2


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (np.zeros((2, 3, 4, 4), np.float32), r"got ndarray; torch\.from_numpy makes a tensor"),
        ([np.zeros((2, 3, 4, 4), np.float32)], r"got ndarray; torch\.from_numpy makes a tensor"),
        (None, "got NoneType"),
        ([], "at least one batch"),
        ([{"image": torch.zeros(2, 3, 4, 4)}], "got dict"),
        ([[]], "got list"),
        (torch.zeros(0, 3, 4, 4), "at least one image"),
        ([torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 5, 5)], r"one size.*\(2, 3, 4, 4\) and \(2, 3, 5, 5\)"),
    ],
)
def test_what_is_no_example_is_refused(example: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        example_batches(example)
