"""Saturating pairs of products, emulated: against a direct evaluation, the engine, and the bound."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saq_qat_export.proof.codes import pair_comparison
from saq_qat_export.reference.integer_math import Window
from saq_qat_export.reference.saturating_pairs import can_saturate, conv_saturation, saturation
from tests.export.networks import SIDE, small, smooth_images

Random = np.random.Generator


def vpmaddubsw(first: Any, second: Any) -> int:
    """One dot product as the instruction computes it, code by code."""
    total = 0
    for start in range(0, len(first), 2):
        pair = sum(int(a) * int(b) for a, b in zip(first[start : start + 2], second[start:], strict=False))
        total += min(max(pair, -32768), 32767) if start + 1 < len(first) else pair
    return total


@pytest.mark.parametrize("depth", [1, 2, 7, 16])
@pytest.mark.parametrize("seed", range(5))
def test_products_lose_what_the_instruction_loses(seed: int, depth: int) -> None:
    random = np.random.default_rng(seed)
    first = random.integers(128, 256, (3, depth)).astype(np.int32)
    second = random.choice([-128, -100, 90, 127], (depth, 4)).astype(np.int8)
    paired = [[vpmaddubsw(row, column) for column in second.T] for row in first]
    np.testing.assert_array_equal(first @ second.astype(np.int32) + saturation(first, second), paired)


def test_broadcast_axes_are_those_of_the_product() -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 256, (2, 1, 5, 8)).astype(np.int32)
    second = random.integers(-128, 128, (3, 8, 6)).astype(np.int8)
    found = saturation(first, second)
    assert found.shape == (2, 3, 5, 6)
    assert found.any()
    np.testing.assert_array_equal(found[1, 2], saturation(first[1, 0], second[2]))


def test_convolutions_pair_neighbouring_channels_and_pad_with_the_zero_point() -> None:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (1, 4, 3, 3)).astype(np.int32)
    weight = random.integers(-127, 128, (2, 4, 3, 3)).astype(np.int8)
    found = conv_saturation(x, 128, weight, Window(padding=(1, 1)))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=128)
    for row, column, out in np.ndindex(3, 3, 2):
        patch = padded[0, :, row : row + 3, column : column + 3].transpose(1, 2, 0).reshape(-1)
        kernel = weight[out].transpose(1, 2, 0).reshape(-1)
        assert found[0, out, row, column] == vpmaddubsw(patch, kernel) - int(patch @ kernel.astype(np.int32))


def test_depthwise_convolutions_lose_nothing() -> None:
    x, weight = np.full((1, 8, 5, 5), 255, np.int32), np.full((8, 1, 3, 3), 127, np.int8)
    assert not conv_saturation(x, 0, weight, Window(groups=8)).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 255), st.integers(0, 128), st.integers(0, 2**32 - 1))
def test_within_the_bound_no_order_of_pairs_loses_anything(largest: int, weight: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    first = random.integers(0, largest + 1, (2, 12)).astype(np.int32)
    second = random.integers(-weight, min(weight, 127) + 1, (12, 3)).astype(np.int8)
    orders = [random.permutation(12) for _ in range(8)]
    loses = any(saturation(first[:, order], second[order]).any() for order in orders)
    assert not (loses and not can_saturate(first, second))


def test_deployed_networks_lose_no_code_on_any_cpu() -> None:
    images = smooth_images(4, SIDE, seed=1)
    for bits in ((4, 4), (8, 8)):
        comparison = pair_comparison(small(*bits).view, [images], cpu="any")
        assert (comparison.hard, comparison.passed, comparison.mismatches) == (True, True, 0)
        assert comparison.compared > 1000
