"""Accuracy, loss and calibration of logits, counted image by image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.analysis.study.answers import answers_of, cross_entropy, expected_calibration_error, flips


@given(
    seed=st.integers(0, 1000), images=st.integers(1, 40), classes=st.integers(2, 6), bins=st.integers(2, 15)
)
def test_the_calibration_error_is_that_of_the_bins_one_by_one(
    seed: int, images: int, classes: int, bins: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = 3 * rng.standard_normal((images, classes)), rng.integers(0, classes, images)
    inside: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(logits, labels, strict=True):
        exponentials = [math.exp(x) for x in row]
        confidence = max(exponentials) / sum(exponentials)
        number = next(m for m in range(1, bins + 1) if confidence <= m / bins + 1e-15)
        inside.setdefault(number, []).append((confidence, int(row.argmax()) == label))
    expected = sum(
        len(found)
        / images
        * abs(sum(right for _, right in found) / len(found) - sum(c for c, _ in found) / len(found))
        for found in inside.values()
    )
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-12)


def test_answers_are_those_of_torch() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((50, 7)), rng.integers(0, 7, 50)
    found = answers_of(logits, labels, 15)
    reference = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert found.loss == pytest.approx(float(reference), abs=1e-12)
    assert (
        found.top1
        == 100 * sum(int(row.argmax()) == label for row, label in zip(logits, labels, strict=True)) / 50
    )
    assert found.images == 50


def test_large_logits_overflow_nothing() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, -1000.0]])
    assert cross_entropy(logits, np.array([0, 0])) == 0.0
    assert expected_calibration_error(logits, np.array([0, 0]), 15) == 0.0
    assert cross_entropy(logits, np.array([1, 0])) == 500.0


def test_flips_are_images_of_another_class() -> None:
    one = np.array([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0]])
    assert flips(one, one + 5) == 0
    assert flips(one, one[:, ::-1]) == 3
