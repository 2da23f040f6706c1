"""Codes, fake-quant and its gradients: against golden arrays, independent formulas and autograd."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saq_qat.quant.numerics.functional import (
    ALPHA_FLOOR,
    clip_bounds,
    clip_mask,
    codes,
    fake_quantize,
    pass_inside,
    scale_of,
    value_of_zero,
    zero_level,
)
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid

GRIDS = [
    *(weight_grid("saq", bits) for bits in (2, 3, 4, 7)),
    weight_grid("saq", 8, paper=True),
    *(weight_grid("symmetric", bits) for bits in (2, 4, 8)),
    *(activation_grid("saq", bits, signed=False) for bits in (2, 4, 8)),
    activation_grid("saq", 8, signed=True),
    activation_grid("lsq", 4, signed=True),
    activation_grid("lsq", 4, signed=False),
]
grids = st.sampled_from(GRIDS)
alphas = st.floats(1 / 64, 100, width=32)
seeds = st.integers(0, 2**31)


def sample(seed: int, alpha: float, grid: Grid, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values inside, outside and on both bounds, with zeros of both signs."""
    generator = torch.Generator().manual_seed(seed)
    reach = alpha * grid.maximum / grid.unit
    bulk = torch.randn(200, generator=generator, dtype=dtype) * reach
    return torch.cat([bulk, torch.tensor([0.0, -0.0, reach, -reach, 10 * reach, -10 * reach], dtype=dtype)])


def numpy_codes(x: Tensor, scale: Tensor, grid: Grid) -> npt.NDArray[np.floating]:
    """QuantizeLinear and Clip as ONNX defines them, in NumPy."""
    quotient = x.numpy() / scale.numpy()
    if grid.step == 2:
        n = np.asarray(grid.unit, quotient.dtype)
        code = 2 * np.rint((quotient + n) / 2) - n
    else:
        code = np.rint(quotient)
    return np.asarray(np.clip(code, grid.minimum, grid.maximum))


# codes


@given(seeds, alphas, grids)
def test_codes_are_legal_members_of_the_grid(seed: int, alpha: float, grid: Grid) -> None:
    result = codes(sample(seed, alpha, grid), scale_of(torch.tensor(alpha), grid.unit), grid)
    assert torch.equal(result, result.round())
    assert grid.minimum <= result.min() and result.max() <= grid.maximum
    assert not ((result - grid.minimum) % grid.step).any()


@given(seeds, alphas, grids, st.sampled_from([torch.float32, torch.float64]))
def test_codes_equal_an_independent_formula_bit_for_bit(
    seed: int, alpha: float, grid: Grid, dtype: torch.dtype
) -> None:
    x, scale = sample(seed, alpha, grid, dtype), scale_of(torch.tensor(alpha, dtype=dtype), grid.unit)
    assert np.array_equal(codes(x, scale, grid).numpy(), numpy_codes(x, scale, grid))


@given(alphas, grids)
def test_grid_points_are_their_own_codes_and_quantizing_twice_is_quantizing_once(
    alpha: float, grid: Grid
) -> None:
    level = torch.tensor(alpha)
    scale = scale_of(level, grid.unit)
    points = torch.arange(grid.minimum, grid.maximum + 1, grid.step) * scale
    assert torch.equal(codes(points, scale, grid), (points / scale).round())
    assert torch.equal(fake_quantize(points, level, grid), points)


@given(seeds, alphas, grids)
def test_codes_never_fall_where_values_rise(seed: int, alpha: float, grid: Grid) -> None:
    x = sample(seed, alpha, grid).sort().values
    assert (codes(x, scale_of(torch.tensor(alpha), grid.unit), grid).diff() >= 0).all()


@given(seeds, alphas, grids, st.integers(-8, 8))
def test_powers_of_two_scale_through(seed: int, alpha: float, grid: Grid, power: int) -> None:
    x, level = sample(seed, alpha, grid), torch.tensor(alpha)
    scaled = fake_quantize(x * 2.0**power, level * 2.0**power, grid)
    assert torch.equal(scaled, fake_quantize(x, level, grid) * 2.0**power)


def test_ties_go_to_the_even_integer() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5])
    assert codes(x, torch.tensor(1.0), Grid(-7, 7, unit=7)).tolist() == [0, 2, 2, 0, -2]


def test_zero_is_a_tie_of_the_odd_grid_and_becomes_plus_one() -> None:
    for bits in (2, 3, 4, 8):
        grid = weight_grid("saq", bits, paper=True)
        assert codes(torch.zeros(1), scale_of(torch.tensor(1.0), grid.unit), grid).item() == 1


@given(seeds, grids)
def test_the_sign_of_the_clip_level_does_not_matter(seed: int, grid: Grid) -> None:
    x = sample(seed, 1.3, grid)
    assert torch.equal(fake_quantize(x, torch.tensor(1.3), grid), fake_quantize(x, torch.tensor(-1.3), grid))


@pytest.mark.parametrize("unit", [1, 3, 7, 15, 31, 63, 127, 255])
def test_the_scale_is_the_quotient_rounded_once_on_every_device(unit: int) -> None:
    generator = np.random.default_rng(unit)
    levels = (generator.uniform(1, 2, 200_000) * 2.0 ** generator.integers(-15, 16, 200_000)).astype(
        np.float32
    )
    quotients = levels / np.float32(unit)
    assert np.array_equal(scale_of(torch.from_numpy(levels), unit).numpy(), quotients)
    # a GPU divides by a number so, in the precision of the tensor
    on_gpu = (levels.astype(np.float64) * (1.0 / unit)).astype(np.float32)
    assert np.array_equal(on_gpu, quotients)


def test_a_clip_level_of_zero_counts_as_the_floor() -> None:
    out = fake_quantize(torch.tensor([1.0, 0.0]), torch.tensor(0.0), Grid(0, 15, unit=15))
    torch.testing.assert_close(out, torch.tensor([ALPHA_FLOOR, 0.0]))


def test_the_input_is_left_as_it_was() -> None:
    x = torch.randn(50)
    before = x.clone()
    fake_quantize(x, torch.tensor(1.0), weight_grid("saq", 4), beta=torch.tensor(0.1))
    assert torch.equal(x, before)


# gradients


def straight_through(x: Tensor, alpha: Tensor, grid: Grid, beta: Tensor) -> Tensor:
    """The same quantizer for autograd alone: clipping by where, rounding as a constant added."""
    scale = alpha.abs() / grid.unit
    lower, upper = scale * grid.minimum + beta, scale * grid.maximum + beta
    inside = (x >= lower) & (x <= upper)
    clipped = torch.where(inside, (x - beta) / scale, torch.where(x < lower, grid.minimum, grid.maximum))
    code = codes(x.detach(), scale.detach(), grid, beta.detach())
    return (clipped + (code - clipped).detach()) * scale + beta


@given(seeds, st.floats(0.1, 10), st.sampled_from([-1, 1]), grids, st.sampled_from([0.0, 0.37, -0.2]))
def test_gradients_equal_autograd_of_a_straight_through_composition(
    seed: int, alpha: float, sign: int, grid: Grid, beta: float
) -> None:
    values = torch.randn(100, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 * alpha
    upstream = torch.randn(100, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    results = []
    for quantizer in (fake_quantize, straight_through):
        inputs = [
            values.clone().requires_grad_(),
            torch.tensor(sign * alpha, dtype=torch.float64, requires_grad=True),
            torch.tensor(beta, dtype=torch.float64, requires_grad=True),
        ]
        x, level, offset = inputs
        out = (
            fake_quantize(x, level, grid, beta=offset)
            if quantizer is fake_quantize
            else straight_through(x, level, grid, offset)
        )
        results.append((out, *torch.autograd.grad(out, inputs, upstream)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def plain_quantizer(
    x: npt.NDArray[np.float64], upstream: npt.NDArray[np.float64], alpha: float, beta: float, grid: Grid
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float, float]:
    """Output and gradients of a quantizer with an offset, element by element, clipped before it rounds."""
    level = abs(alpha)
    low, high = grid.minimum / grid.unit, grid.maximum / grid.unit
    out, grad_x, grad_alpha, grad_beta = np.empty_like(x), np.zeros_like(x), 0.0, 0.0
    for i, value in enumerate(x):
        r = (value - beta) / level
        clipped = min(max(r, low), high)
        if grid.step == 2:
            q = (2 * np.rint((clipped + 1) / 2 * grid.unit) - grid.unit) / grid.unit
        else:
            q = np.rint(clipped * grid.unit) / grid.unit
        out[i] = level * q + beta
        if low <= r <= high:
            grad_x[i] = upstream[i]
            grad_alpha += np.sign(alpha) * upstream[i] * (q - r)
        else:
            grad_alpha += np.sign(alpha) * upstream[i] * q
            grad_beta += upstream[i]
    return out, grad_x, grad_alpha, grad_beta


@given(seeds, st.floats(0.1, 10), st.sampled_from([-1, 1]), grids, st.floats(-5, 5))
def test_an_offset_equals_the_plain_form(seed: int, level: float, sign: int, grid: Grid, beta: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, upstream = torch.randn(2, 60, generator=generator, dtype=torch.float64)
    x = (x * 2 * level + beta).requires_grad_()
    alpha = torch.tensor(sign * level, dtype=torch.float64, requires_grad=True)
    offset = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    out = fake_quantize(x, alpha, grid, beta=offset)
    ours = (out, *torch.autograd.grad(out, (x, alpha, offset), upstream))
    plain = plain_quantizer(x.detach().numpy(), upstream.numpy(), sign * level, beta, grid)
    for value, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(value.detach(), torch.as_tensor(expected).double(), rtol=1e-8, atol=1e-8)


@given(seeds, alphas, grids, st.floats(-10, 10, width=32))
def test_an_offset_is_subtracted_in_the_tensors_precision_before_anything_is_divided(
    seed: int, alpha: float, grid: Grid, beta: float
) -> None:
    offset, scale = torch.tensor(beta), scale_of(torch.tensor(alpha), grid.unit)
    x = sample(seed, alpha, grid) + offset
    assert torch.equal(codes(x, scale, grid, offset), codes(torch.sub(x, offset), scale, grid))


# codes counted from the code of zero

unsigned_grids = st.sampled_from(
    [*(activation_grid(kind, bits, signed=False) for kind in ("saq", "lsq") for bits in (2, 3, 4, 8))]
)
places = st.floats(-1.5, 0.5)
"""Offset over reach: zero lies above the grid below -1, on it from there to 0, below it above 0."""


@given(seeds, alphas, unsigned_grids, places)
def test_codes_from_zero_equal_an_independent_formula_bit_for_bit(
    seed: int, alpha: float, grid: Grid, place: float
) -> None:
    scale = scale_of(torch.tensor(alpha), grid.unit)
    offset = scale * grid.maximum * place
    x = sample(seed, alpha, grid) + offset
    s, beta = scale.numpy(), offset.numpy()
    zero = np.clip(np.rint(-beta / s), 0, grid.maximum)
    residual = beta + s * zero
    expected = np.clip(np.rint((x.numpy() - residual) / s), -zero, grid.maximum - zero)
    assert zero_level(scale, grid, offset) == (zero, residual)
    assert np.array_equal(codes(x, scale, grid, offset, counts_from_zero=True).numpy(), expected)


@given(seeds, alphas, unsigned_grids, places)
def test_counting_from_zero_moves_codes_and_no_value(
    seed: int, alpha: float, grid: Grid, place: float
) -> None:
    scale = scale_of(torch.tensor(alpha, dtype=torch.float64), grid.unit)
    offset = scale * grid.maximum * place
    zero, value = zero_level(scale, grid, offset)
    levels = offset + scale * torch.arange(grid.maximum + 1)
    assert value.abs().item() == pytest.approx(levels.abs().min().item(), abs=1e-9 * alpha)
    x = sample(seed, alpha, grid, torch.float64) + offset
    x = torch.cat([x, torch.zeros(1, dtype=torch.float64)])
    x = x[((((x - offset) / scale).frac().abs() - 0.5).abs() > 1e-6)]  # ties may go either way
    ours, plain = (codes(x, scale, grid, offset, counts_from_zero=flag) for flag in (True, False))
    assert torch.equal(ours + zero, plain)
    assert not ours[x == 0].any()


@given(seeds, st.floats(0.1, 10), st.sampled_from([-1, 1]), unsigned_grids, places)
def test_counting_from_zero_changes_no_gradient(
    seed: int, level: float, sign: int, grid: Grid, place: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, upstream = torch.randn(2, 60, generator=generator, dtype=torch.float64)
    beta = place * level * grid.maximum / grid.unit
    x = (x * 2 * level + beta).requires_grad_()
    alpha = torch.tensor(sign * level, dtype=torch.float64, requires_grad=True)
    offset = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    out = fake_quantize(x, alpha, grid, beta=offset, counts_from_zero=True)
    ours = (out, *torch.autograd.grad(out, (x, alpha, offset), upstream))
    plain = plain_quantizer(x.detach().numpy(), upstream.numpy(), sign * level, beta, grid)
    for value, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(value.detach(), torch.as_tensor(expected).double(), rtol=1e-8, atol=1e-8)


@given(st.floats(0.1, 10), st.sampled_from([-1, 1]), unsigned_grids, places)
def test_the_value_of_zero_has_the_gradients_of_an_element_that_is_zero(
    level: float, sign: int, grid: Grid, place: float
) -> None:
    alpha = torch.tensor(sign * level, dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(place * level * grid.maximum / grid.unit, dtype=torch.float64, requires_grad=True)
    ours = value_of_zero(alpha, beta, grid)
    theirs = straight_through(torch.zeros((), dtype=torch.float64), alpha, grid, beta)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-9)
    for own, expected in zip(
        torch.autograd.grad(ours * 0.7, (alpha, beta)),
        torch.autograd.grad(theirs * 0.7, (alpha, beta)),
        strict=True,
    ):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-9)


def test_the_offset_gradient_counts_the_clipped_alone_however_large_the_rest() -> None:
    x = torch.full((2**20,), 0.5)
    x[7] = 3.0
    upstream = torch.full_like(x, 1000.1)
    upstream[7] = 1e-3
    beta = torch.zeros((), requires_grad=True)
    out = fake_quantize(x, torch.tensor(1.0), Grid(0, 15, unit=15), beta=beta)
    torch.autograd.backward(out, upstream)
    assert beta.grad is not None
    assert beta.grad.item() == pytest.approx(1e-3)


def test_the_clip_level_gradient_keeps_its_digits_on_a_million_values() -> None:
    torch.manual_seed(0)
    x, upstream = torch.randn(2**20).relu(), torch.randn(2**20) * 1e-3 + 1e-3
    grid = activation_grid("saq", 8, signed=False)
    found = []
    for dtype in (torch.float32, torch.float64):
        alpha = torch.tensor(2.0, dtype=dtype, requires_grad=True)
        torch.autograd.backward(fake_quantize(x.to(dtype), alpha, grid), upstream.to(dtype))
        found.append(float(alpha.grad or 0))
    assert found[0] == pytest.approx(found[1], rel=2e-4)


@pytest.mark.parametrize("grid", GRIDS, ids=Grid.describe)
def test_bounds_are_inclusive(grid: Grid) -> None:
    alpha = torch.tensor(0.7)
    lower, upper = clip_bounds(alpha, grid)
    beyond = [torch.nextafter(lower, torch.tensor(-9.0)), torch.nextafter(upper, torch.tensor(999.0))]
    x = torch.stack([lower, upper, *beyond]).requires_grad_()
    torch.autograd.backward(fake_quantize(x, alpha, grid).sum())
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 0, 0]
    assert clip_mask(x.detach(), alpha, grid).tolist() == [True, True, False, False]


def test_the_bounds_of_a_clip_level_are_exactly_the_clip_level() -> None:
    alpha = torch.tensor(0.7)
    for bits in (2, 3, 4, 7):
        lower, upper = clip_bounds(alpha, weight_grid("saq", bits))
        assert (lower, upper) == (-alpha, alpha)


@given(
    st.tuples(*[st.floats(-5, 5, width=32)] * 2).map(sorted),
    st.lists(st.floats(-6, 6, width=32), min_size=1, max_size=20),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_pass_inside_equals_its_comparison_form(
    bounds: list[float], values: list[float], dtype: torch.dtype
) -> None:
    lower, upper = (torch.tensor(bound, dtype=dtype) for bound in bounds)
    infinity = torch.full_like(lower, torch.inf)
    neighbours = [torch.nextafter(bound, to) for bound in (lower, upper) for to in (infinity, -infinity)]
    tiny = torch.finfo(dtype).smallest_normal
    denormals = torch.tensor([0.0, -0.0, tiny, -tiny, tiny / 2**20, -tiny / 2**20], dtype=dtype)
    x = torch.cat([torch.tensor(values, dtype=dtype), torch.stack([lower, upper, *neighbours]), denormals])
    x = x.repeat(3)  # long enough for the vectorised kernel and its tail
    grad = torch.arange(1, len(x) + 1, dtype=dtype)
    expected = torch.where((x >= lower) & (x <= upper), grad, torch.zeros((), dtype=dtype))
    assert torch.equal(pass_inside(grad, x, lower, upper), expected)


def test_pass_inside_keeps_zero_where_the_lower_bound_is_zero() -> None:
    x = torch.tensor([0.0, -0.0, -1e-45, 1e-45, 1.0])
    assert pass_inside(torch.ones(5), x, torch.tensor(0.0), torch.tensor(1.0)).tolist() == [1, 1, 0, 1, 1]
