"""Values beside a tie fall as the kernels' arithmetic in NumPy has them, and nothing else is changed."""

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from saq_qat.quant.numerics.kernel_rounding import (
    rounded_as_a_sum_of_codes,
    rounded_as_means,
    rounded_as_sums,
)
from saq_qat_export.reference.integer_math import (
    CodeRange,
    Stored,
    requantize_accumulator,
    requantize_mean,
    requantize_sum,
)

SCALES = st.floats(2.0**-10, 8.0, width=32)
TIES = st.integers(0, 120)
ANY = CodeRange(-100_000, 100_000)


def test_sums_at_a_tie_get_the_code_of_the_kernel_and_not_that_of_the_quotient() -> None:
    generator = np.random.default_rng(0)
    sums = generator.integers(1, 3000, 4000).astype(np.int32)
    unit = generator.uniform(1e-4, 1e-2, 4000).astype(np.float32)
    wrong = 0
    for accumulator, grid in zip(sums[:, None], unit[:, None], strict=True):
        tie = generator.integers(0, 15) + 0.5
        scale = np.float32(accumulator[0] * np.float64(grid[0]) / tie)
        expected = requantize_accumulator(accumulator, grid, scale, ANY)
        y = torch.from_numpy(accumulator).float() * torch.from_numpy(grid)
        by_scale = torch.tensor(scale)
        wrong += int((y / by_scale).round()) != int(expected[0])
        sums_of = torch.from_numpy(accumulator).float()
        moved = rounded_as_sums(y, sums_of, torch.from_numpy(grid) / by_scale, by_scale)
        assert int((moved / by_scale).round()) == int(expected[0])
        assert abs(float(moved - y)) <= float(scale) * 2**-9
    assert wrong > 100, "the quotient would have done"


@given(
    st.tuples(st.integers(-127, 127), st.integers(-127, 127)),
    st.tuples(SCALES, SCALES),
    TIES,
    st.tuples(st.sampled_from([0, 7, 128]), st.sampled_from([0, 7, 128]), st.sampled_from([0, 7, 128])),
)
def test_a_sum_of_codes_at_a_tie_gets_the_code_of_the_kernel(
    codes: tuple[int, int], scales: tuple[float, float], tie: int, zero_points: tuple[int, int, int]
) -> None:
    s_a, s_b = (np.float32(scale) for scale in scales)
    (a, b), (z_a, z_b, z) = codes, zero_points
    value = abs(a * np.float64(s_a) + b * np.float64(s_b))
    scale = np.float32(max(value, 1e-3) / (tie + 0.5))
    assume(scale > max(scales) / 16)
    first = Stored(np.array([a], np.int32), s_a, z_a)
    second = Stored(np.array([b], np.int32), s_b, z_b)
    expected = requantize_sum(first, second, scale, z, ANY)
    terms = torch.tensor([float(a)]) * torch.tensor(s_a), torch.tensor([float(b)]) * torch.tensor(s_b)
    y = terms[0] + terms[1]
    each = torch.tensor(s_a), torch.tensor(s_b), torch.tensor(scale)
    moved = rounded_as_a_sum_of_codes(y, terms, each, zero_points)
    assert int((moved / each[2]).round()) == int(expected[0])


def test_means_at_a_tie_get_the_code_of_the_kernel_and_not_that_of_the_quotient() -> None:
    generator = np.random.default_rng(0)
    wrong = 0
    for height, width in generator.integers(2, 12, (1500, 2)):
        codes = generator.integers(0, 200, (1, 3, height, width)).astype(np.int32)
        value_scale = np.float32(generator.uniform(1e-3, 1e-1))
        tie = generator.integers(0, 100) + 0.5
        scale = np.float32(codes[0, 0].sum() * np.float64(value_scale) / (height * width) / tie)
        values = torch.from_numpy(codes).float() * torch.tensor(value_scale)
        y, by_scale = values.mean((2, 3)), torch.tensor(scale)
        expected = requantize_mean(codes, value_scale, scale, ANY)[:, :, 0, 0]
        wrong += int(((y / by_scale).round().numpy() != expected).sum())
        moved = rounded_as_means(y, values, torch.tensor(value_scale), by_scale)
        assert np.array_equal((moved / by_scale).round().numpy(), expected)
        assert float((moved - y).abs().max()) <= float(scale) * 2**-9
    assert wrong > 100, "the quotient would have done"


def test_gradients_are_those_of_the_value_itself() -> None:
    y = torch.tensor([0.25, 0.5, -1.5], requires_grad=True)
    moved = rounded_as_sums(y, torch.tensor([1.0, 2.0, -6.0]), torch.tensor(0.5), torch.tensor(0.5))
    upstream = torch.tensor([1.0, 2.0, 3.0])
    (gradient,) = torch.autograd.grad(moved, y, upstream)
    assert torch.equal(gradient, upstream)
