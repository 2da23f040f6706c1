"""The integer reference's arithmetic against Python integers and fractions, which round nothing."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from saq_qat.errors import ArtifactError
from saq_qat_export.reference import integer_math
from saq_qat_export.reference.integer_math import CodeRange, Stored, Window

BYTE = CodeRange(0, 255)
seeds = st.integers(0, 2**32 - 1)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.tuples(st.integers(0, 2), st.integers(0, 2))


def slow_conv(
    x: npt.NDArray[np.int32], weight: npt.NDArray[np.int8], bias: npt.NDArray[np.int32], window: Window
) -> list[int]:
    """Every accumulator in order, as sums of Python integers over positions inside the image."""
    n, _, rows, columns = x.shape
    out, depth, height, width = weight.shape
    (pad_h, pad_w), (dil_h, dil_w), (step_h, step_w) = window.padding, window.dilation, window.stride
    tall = (rows + 2 * pad_h - (height - 1) * dil_h - 1) // step_h + 1
    wide = (columns + 2 * pad_w - (width - 1) * dil_w - 1) // step_w + 1
    result = []
    for image, channel, i, j in itertools.product(range(n), range(out), range(tall), range(wide)):
        first = channel // (out // window.groups) * depth
        total = int(bias[channel])
        for c, a, b in itertools.product(range(depth), range(height), range(width)):
            row, column = i * step_h - pad_h + a * dil_h, j * step_w - pad_w + b * dil_w
            if 0 <= row < rows and 0 <= column < columns:
                total += int(x[image, first + c, row, column]) * int(weight[channel, c, a, b])
        result.append(total)
    return result


@given(seeds, pairs, pairs, paddings, pairs, st.integers(1, 3), st.integers(1, 2), st.integers(1, 2))
def test_convolution_is_the_sum_of_integer_products(
    seed: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    depth: int,
    per_group: int,
) -> None:
    random = np.random.default_rng(seed)
    size = random.integers(3, 8, 2)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    assume(all(s <= int(n) + 2 * p for s, n, p in zip(spans, size, padding, strict=True)))
    x = random.integers(-128, 256, (2, groups * depth, *size)).astype(np.int32)
    weight = random.integers(-127, 128, (groups * per_group, depth, *kernel)).astype(np.int8)
    bias = random.integers(-(2**30), 2**30, groups * per_group).astype(np.int32)
    window = Window(stride, padding, dilation, groups)
    found = integer_math.accumulate_conv(x, weight, bias, window)
    assert found.dtype == np.int32
    assert found.reshape(-1).tolist() == slow_conv(x, weight, bias, window)


def test_long_sums_are_exact_beyond_the_24_bits_of_float32() -> None:
    x = np.full((1, 4096, 1, 1), 255, np.int32)
    x[0, 0] = 254
    weight = np.full((1, 4096, 1, 1), 127, np.int8)
    (found,) = integer_math.accumulate_conv(x, weight, np.array([1], np.int32), Window()).reshape(-1)
    assert found == 4096 * 255 * 127 - 127 + 1


@given(seeds, st.integers(1, 300), st.integers(1, 5))
def test_linear_is_the_sum_of_integer_products(seed: int, depth: int, out: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(-128, 256, (3, depth)).astype(np.int32)
    weight = random.integers(-128, 128, (out, depth)).astype(np.int8)
    bias = random.integers(-(2**30), 2**30, out).astype(np.int32)
    expected = [
        [int(bias[o]) + sum(int(a) * int(b) for a, b in zip(row, weight[o], strict=True)) for o in range(out)]
        for row in x
    ]
    assert integer_math.accumulate_linear(x, weight, bias).tolist() == expected


@given(seeds, st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 4)))
def test_a_product_is_the_sum_of_integer_products(seed: int, sizes: tuple[int, int, int]) -> None:
    random, (rows, depth, columns) = np.random.default_rng(seed), sizes
    a = random.integers(-255, 256, (2, 1, rows, depth)).astype(np.int32)
    b = random.integers(-128, 128, (3, depth, columns)).astype(np.int32)
    found = integer_math.accumulate_product(a, b)
    assert found.shape == (2, 3, rows, columns)
    for n, m, i, j in np.ndindex(found.shape):
        products = zip(a[n, 0, i].tolist(), b[m, :, j].tolist(), strict=True)
        assert found[n, m, i, j] == sum(left * right for left, right in products)


def test_an_accumulator_that_could_leave_int32_is_refused_with_the_fix() -> None:
    x, weight = np.full((1, 2), 255, np.int32), np.full((1, 2), 127, np.int8)
    largest = np.array([2**31 - 1 - 2 * 255 * 127], np.int32)
    assert integer_math.accumulate_linear(x, weight, largest).item() == 2**31 - 1
    with pytest.raises(ArtifactError, match=r"beyond int32.*refine_bias: false"):
        integer_math.accumulate_linear(x, weight, largest + 1)
    with pytest.raises(ArtifactError, match="beyond int32"):
        integer_math.accumulate_conv(x[..., None, None], weight[..., None, None], -largest - 2, Window())


def nearest_float32(exact: Fraction) -> Fraction:
    """Round to the nearest float32, ties to even, without any floating-point arithmetic."""
    if exact == 0:
        return exact
    exponent = math.frexp(float(abs(exact)))[1]
    unit = Fraction(2) ** (exponent - 24)
    return round(exact / unit) * unit


@given(
    st.integers(0, 255),
    st.floats(2.0**-12, 2.0**4, width=32),
    st.floats(-(2.0**9), 2.0**9, width=32),
    st.integers(-3, 3),
)
def test_fused_multiply_add_rounds_once(code: int, factor: float, addend: float, step: int) -> None:
    """Also where the exact sum lies next to a tie between two float32, which rounding twice gets wrong."""
    product = Fraction(code) * Fraction(factor)
    halfway = np.float32(-float(product))
    hard = np.float32(addend) if step == 0 else halfway * np.float32(1 + step * 2.0**-23)
    for other in (np.float32(addend), hard):
        found = integer_math._fused_multiply_add(np.array([code], np.int32), np.float32(factor), other)
        assert Fraction(float(found[0])) == nearest_float32(product + Fraction(float(other)))


def test_fused_multiply_add_rounds_once_where_float64_would_round_to_a_tie() -> None:
    """The product is a tie between two float32; the 2^-60 above it decides, and float64 cannot hold it."""
    factor, addend = np.float32(2.0**22 - 0.5), np.float32(2.0**-60)
    exact = 3 * Fraction(float(factor)) + Fraction(float(addend))
    assert float(exact) % 1 == 0.5
    found = integer_math._fused_multiply_add(np.array([3], np.int32), factor, addend)
    assert Fraction(float(found[0])) == nearest_float32(exact) > exact


@given(st.integers(0, 20), st.floats(2.0**-10, 4, width=32))
def test_quantize_breaks_ties_to_even_and_saturates(half: int, scale: float) -> None:
    unit = np.float32(2.0 ** round(math.log2(scale)))
    x = np.array([(half + 0.5) * unit, -1e9, 1e9, -(half + 0.5) * unit], np.float32)
    even = half + half % 2
    found = integer_math.quantize_float(x, unit, CodeRange(-128, 127))
    assert found.tolist() == [even, -128, 127, -even]


@given(seeds, st.integers(1, 5), st.integers(1, 5))
def test_mean_is_the_exact_mean_rounded_where_no_tie_is_near(seed: int, height: int, width: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(0, 128, (2, 3, height, width)).astype(np.int32)
    scale, own = np.float32(0.1), np.float32(random.uniform(0.05, 0.2))
    found = integer_math.requantize_mean(x, scale, own, BYTE)
    exact = x.sum(axis=(2, 3), keepdims=True) * (float(scale) / (float(own) * height * width))
    clear = np.abs(exact - np.floor(exact) - 0.5) > 1e-4
    assert (found == np.clip(np.rint(exact), 0, 255))[clear].all()


@given(seeds)
def test_sum_is_the_exact_sum_rounded_where_no_tie_is_near(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (random.integers(-128, 128, (64,)).astype(np.int32) for _ in "ab")
    scale_a, scale_b, scale = random.uniform(0.01, 1, 3).astype(np.float32)
    codes = CodeRange(-128, 127)
    found = integer_math.requantize_sum(Stored(a, scale_a, 128), Stored(b, scale_b, 128), scale, 128, codes)
    exact = (a * float(scale_a) + b * float(scale_b)) / float(scale)
    clear = np.abs(exact - np.floor(exact) - 0.5) > 1e-2
    assert (found == np.clip(np.rint(exact), -128, 127))[clear].all()


@pytest.mark.parametrize(
    ("a", "b", "swapped"),
    [
        ((2, 8, 5, 5), (2, 8, 1, 1), False),
        ((2, 8, 1, 1), (2, 8, 5, 5), True),
        ((4, 33), (33,), False),
        ((33,), (4, 33), False),
        ((300, 1), (1, 300), True),
        ((2, 8, 5, 1), (2, 1, 5, 1), False),
        ((), (3,), True),
        ((1,), (1,), False),
    ],
)
def test_operands_swap_only_where_the_first_repeats_innermost(
    a: tuple[int, ...], b: tuple[int, ...], swapped: bool
) -> None:
    assert integer_math.broadcasts_innermost(a, b) is swapped


@pytest.mark.parametrize("size", [5, 6, 7, 8, 9])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(2, 2, 0, 1), (3, 2, 0, 1), (3, 2, 1, 1), (2, 3, 1, 1), (3, 3, 1, 2)],
)
def test_pooling_that_rounds_up_is_pytorchs(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    """A window may reach beyond the padding, but not start there."""
    x = np.random.default_rng(0).integers(-9, 9, (2, 3, size, size + 1)).astype(np.int32)
    pool = torch.nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=True)
    expected = pool(torch.from_numpy(x).float()).numpy()
    window = Window((stride, stride), (padding, padding), (dilation, dilation))
    np.testing.assert_array_equal(integer_math.max_pool(x, (kernel, kernel), window, round_up=True), expected)


@pytest.mark.parametrize("shapes", [((9, 400, 30), (9, 400, 30)), ((400, 30), (9, 400, 30))])
def test_sums_looked_up_by_pairs_of_codes_are_those_computed_one_by_one(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    generator = np.random.default_rng(0)
    a, b = (
        Stored(generator.integers(low, 128, shape).astype(np.int32), np.float32(scale), -min(low, 0))
        for shape, low, scale in zip(shapes, (-127, 0), (0.0131, 0.0217), strict=True)
    )
    settings = (np.float32(0.0301), 0, CodeRange(0, 127))
    whole = np.ravel(integer_math.requantize_sum(a, b, *settings))
    wide_a, wide_b = np.broadcast_arrays(a.codes, b.codes)
    for start in range(0, whole.size, 1000):  # fewer sums than pairs of codes
        part = slice(start, start + 1000)
        one_by_one = integer_math.requantize_sum(
            replace(a, codes=wide_a.ravel()[part]), replace(b, codes=wide_b.ravel()[part]), *settings
        )
        assert np.array_equal(whole[part], one_by_one)
