"""First clip levels, steps and offsets."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from saq_qat.quant.numerics.functional import codes, scale_of
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.initialise import Initialisation, initial_parameters, least_squares
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid
from tests.quant.golden import Case, cases

METHODS: tuple[Initialisation, ...] = ("ones", "max", "mse", "least_squares")
OFFSET_GRIDS = [
    activation_grid(kind, bits, signed=signed)
    for kind in ("saq", "lsq")
    for bits in (2, 4, 8)
    for signed in (False, True)
]
GRIDS = [*OFFSET_GRIDS, weight_grid("saq", 4), weight_grid("symmetric", 8), weight_grid("lsq", 3)]


def clip_level(x: Tensor, grid: Grid, method: Initialisation) -> Tensor:
    return initial_parameters(x, grid, method, offset=False).alpha


def squared_error(x: Tensor, step: Tensor, grid: Grid, beta: Tensor | float | None = None) -> float:
    offset = torch.as_tensor(0.0 if beta is None else beta, dtype=x.dtype)
    return float((codes(x, step, grid, offset) * step + offset - x).square().sum())


def normal(count: int = 1 << 16) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def shaped(shape: str, count: int = 8192) -> Tensor:
    x = normal(count)
    return {
        "normal": x,
        "laplace": x.sign() * -torch.linspace(0.001, 1, count).log(),
        "relu": x.relu(),
        "gelu": torch.nn.functional.gelu(x),
        "shifted": 0.3 * x - 1,
        "one outlier": torch.cat([x[1:], torch.tensor([8.0])]),
    }[shape]


def test_ones_is_the_paper() -> None:
    assert clip_level(normal(), weight_grid("saq", 4), "ones") == 1


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (weight_grid("saq", 4), 3.0),
        (activation_grid("saq", 4, signed=False), 2.0),
        (activation_grid("saq", 8, signed=True), 3.0),
    ],
)
def test_max_reaches_the_largest_value_that_the_grid_has_a_sign_for(grid: Grid, expected: float) -> None:
    assert clip_level(torch.tensor([-3.0, 0.5, 2.0]), grid, "max") == expected


def test_the_clip_level_of_the_signed_eight_bit_grid_is_the_value_of_code_127() -> None:
    grid = activation_grid("saq", 8, signed=True)
    assert (grid.minimum, grid.unit) == (-128, 127)
    x = torch.tensor([-2.0, 1.5, 2.0])
    alpha = clip_level(x, grid, "max")
    assert codes(x, scale_of(alpha, grid.unit), grid).tolist() == [-127, 95, 127]


def test_max_sees_every_element_of_a_large_tensor() -> None:
    x = torch.zeros(1 << 18)
    x[100_001] = 7.0
    assert clip_level(x, activation_grid("saq", 4, signed=False), "max") == 7


@pytest.mark.parametrize("method", ["mse", "least_squares"])
def test_a_sample_of_a_large_tensor_takes_in_every_channel(method: Initialisation) -> None:
    """A power-of-two distance would only ever meet the first of 64 channels."""
    x = normal(1 << 22).reshape(-1, 64) * 0.5 + 3
    x[:, 0] = 0
    grid = activation_grid("lsq", 4, signed=False)
    whole = initial_parameters(x[:1024], grid, method, offset=False)
    sampled = initial_parameters(x, grid, method, offset=False)
    assert float(sampled.alpha) == pytest.approx(float(whole.alpha), rel=0.05)


@pytest.mark.parametrize(("bits", "expected"), [(2, 1.50), (3, 2.06), (4, 2.52)])
def test_mse_finds_the_known_optimum_of_a_normal_distribution(bits: int, expected: float) -> None:
    assert float(clip_level(normal(), weight_grid("saq", bits), "mse")) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
    "grid",
    [
        weight_grid("saq", 2),
        weight_grid("symmetric", 4),
        weight_grid("lsq", 4),
        activation_grid("saq", 4, signed=False),
        activation_grid("saq", 8, signed=True),
    ],
    ids=Grid.describe,
)
@pytest.mark.parametrize("shape", ["normal", "laplace", "relu", "one outlier"])
def test_mse_is_as_good_as_a_dense_search(grid: Grid, shape: str) -> None:
    x = shaped(shape)
    reach = float(x.abs().max())
    steps = torch.linspace(0.01, 1, 600) * reach / grid.maximum
    dense = min(squared_error(x, step, grid) for step in steps)
    ours = squared_error(x, scale_of(clip_level(x, grid, "mse"), grid.unit), grid)
    assert ours <= dense * 1.02


@pytest.mark.parametrize("grid", OFFSET_GRIDS[:4], ids=Grid.describe)
@pytest.mark.parametrize("shape", ["normal", "gelu", "shifted", "one outlier"])
def test_mse_with_an_offset_is_as_good_as_a_dense_search(grid: Grid, shape: str) -> None:
    x = shaped(shape, 512)
    low, high = float(x.min()), float(x.max())
    step = torch.linspace(0.02, 1, 60)[:, None, None] * (high - low) / (grid.maximum - grid.minimum)
    beta = torch.linspace(low, high, 60)[:, None] - step * grid.minimum
    code = ((x - beta) / step).round().clamp(grid.minimum, grid.maximum)
    dense = float((code * step + beta - x).square().sum(-1).min())
    alpha, offset = initial_parameters(x, grid, "mse", offset=True)
    assert squared_error(x, scale_of(alpha, grid.unit), grid, offset) <= dense * 1.05


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("shape", ["normal", "gelu", "shifted", "relu", "one outlier"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_mse_is_no_worse_than_least_squares(shape: str, bits: int, signed: bool, offset: bool) -> None:
    if shape == "relu" and offset:
        return  # mse keeps the offset of a tensor without negative values at zero
    x, grid = shaped(shape), activation_grid("lsq", bits, signed=signed)
    errors = [
        squared_error(x, *_step_first(initial_parameters(x, grid, method, offset=offset), grid))
        for method in ("mse", "least_squares")
    ]
    assert errors[0] <= errors[1] * 1.02


def _step_first(parameters: tuple[Tensor, Tensor | None], grid: Grid) -> tuple[Tensor, Grid, Tensor | None]:
    return scale_of(parameters[0], grid.unit), grid, parameters[1]


@pytest.mark.parametrize("method", ["max", "mse", "least_squares"])
@pytest.mark.parametrize("x", [torch.zeros(5), -torch.ones(5)])
def test_where_nothing_would_be_quantized_a_clip_level_is_a_number(x: Tensor, method: Initialisation) -> None:
    alpha = clip_level(x, activation_grid("saq", 4, signed=False), method)
    assert alpha == 1 or (method == "least_squares" and torch.isfinite(alpha) and alpha > 0)


# offsets


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", OFFSET_GRIDS, ids=Grid.describe)
@pytest.mark.parametrize("value", [0.0, 0.7, -0.7])
def test_a_constant_gets_finite_parameters_and_its_own_value_back(
    grid: Grid, value: float, method: Initialisation
) -> None:
    x = torch.full((6,), value)
    alpha, beta = initial_parameters(x, grid, method, offset=True)
    assert beta is not None and torch.isfinite(alpha) and alpha > 0
    scale = scale_of(alpha, grid.unit)
    if method != "ones":
        torch.testing.assert_close(codes(x, scale, grid, beta) * scale + beta, x)


@pytest.mark.parametrize("method", ["ones", "max"])
@pytest.mark.parametrize("grid", OFFSET_GRIDS, ids=Grid.describe)
def test_the_smallest_code_lies_on_the_smallest_value(grid: Grid, method: Initialisation) -> None:
    x = shaped("gelu")
    alpha, beta = initial_parameters(x, grid, method, offset=True)
    assert beta is not None
    assert float(beta + scale_of(alpha, grid.unit) * grid.minimum) == pytest.approx(float(x.min()), rel=1e-5)
    if not grid.signed:
        assert beta == x.min()


@pytest.mark.parametrize("method", ["ones", "max", "mse"])
@pytest.mark.parametrize("shape", ["relu", "ones"])
def test_without_negative_values_the_offset_is_zero_and_alpha_that_of_no_offset(
    shape: str, method: Initialisation
) -> None:
    x = torch.linspace(1, 2, 50) if shape == "ones" else shaped("relu")
    grid = activation_grid("saq", 4, signed=False)
    alpha, beta = initial_parameters(x, grid, method, offset=True)
    assert beta == 0
    assert alpha == clip_level(x, grid, method)


@given(
    st.sampled_from(METHODS),
    st.sampled_from(GRIDS),
    st.booleans(),
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
)
def test_parameters_are_finite_and_positive_whatever_the_sample(
    method: Initialisation, grid: Grid, offset: bool, values: list[float]
) -> None:
    alpha, beta = initial_parameters(torch.tensor(values), grid, method, offset=offset)
    assert torch.isfinite(alpha) and alpha > 0
    assert (beta is not None) == offset
    assert beta is None or bool(torch.isfinite(beta))


@given(st.sampled_from(METHODS[1:]), st.sampled_from(GRIDS), st.booleans(), st.integers(-6, 6))
def test_powers_of_two_scale_through(
    method: Literal["max", "mse", "least_squares"], grid: Grid, offset: bool, power: int
) -> None:
    x = shaped("gelu", 256)
    small = initial_parameters(x, grid, method, offset=offset)
    large = initial_parameters(x * 2.0**power, grid, method, offset=offset)
    assert large.alpha == small.alpha * 2.0**power
    assert (large.beta is None) if small.beta is None else (large.beta == small.beta * 2.0**power)


# least squares


def plain_least_squares(
    x: npt.NDArray[np.float64], grid: Grid, *, offset: bool
) -> tuple[float, float | None]:
    """The same alternation, written down once more in NumPy."""
    beta = x.min() if offset else 0.0
    step = np.abs(x - beta).max() / grid.maximum
    for _ in range(2000):
        code = np.clip(np.rint((x - beta) / step), grid.minimum, grid.maximum)
        if not code.any():
            break
        last = step
        step = ((x - beta) * code).sum() / (code * code).sum()
        if offset:
            beta = (x - last * code).mean()
        if abs(step - last) / step < 1e-5:
            break
    return float(step), float(beta) if offset else None


@example(seed=0, bits=2, signed=False, offset=False, mean=-2.0)
@given(st.integers(0, 2**31), st.sampled_from([2, 3, 4, 8]), st.booleans(), st.booleans(), st.floats(-2, 2))
def test_least_squares_equals_its_plain_form(
    seed: int, bits: int, signed: bool, offset: bool, mean: float
) -> None:
    x = torch.randn(300, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean
    grid = activation_grid("lsq", bits, signed=signed)
    step, beta = least_squares(x, grid, offset=offset)
    expected_step, expected_beta = plain_least_squares(x.numpy(), grid, offset=offset)
    assert float(step) == pytest.approx(expected_step, rel=1e-7)
    assert (beta is None) if expected_beta is None else (float(beta or 0) == pytest.approx(expected_beta))


@pytest.mark.parametrize("case", cases("lsq/"), ids=lambda case: case.name)
def test_mse_is_no_worse_than_the_reference(case: Case) -> None:
    x = case[case.input]
    grid = (
        weight_grid("lsq", case.bits, paper=True)
        if case.input == "w"
        else activation_grid("lsq", case.bits, signed="/act_signed" in case.name)
    )
    step, beta = initial_parameters(x, grid, "mse", offset="beta" in case)
    assert (beta is not None) == ("beta" in case)
    theirs = squared_error(x, case["alpha"], grid, case.get("beta", 0.0))
    assert squared_error(x, step, grid, beta) <= 1.01 * theirs


@pytest.mark.parametrize("offset", [False, True])
def test_least_squares_of_zeros_is_a_step_of_one(offset: bool) -> None:
    step, beta = least_squares(torch.zeros(4), activation_grid("lsq", 4, signed=True), offset=offset)
    assert step == 1
    assert beta is None or beta == 0


def test_least_squares_keeps_its_start_where_every_code_is_zero() -> None:
    step, _ = least_squares(-torch.ones(4), activation_grid("lsq", 4, signed=False), offset=False)
    assert float(step) == pytest.approx(1 / 15)


def test_least_squares_recovers_a_grid_it_is_given() -> None:
    grid = activation_grid("lsq", 3, signed=False)
    x = torch.arange(8.0) * 0.25
    step, _ = least_squares(x, grid, offset=False)
    assert float(step) == pytest.approx(0.25)
