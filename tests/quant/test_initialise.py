"""First clip levels, steps and offsets."""

import pytest
import torch
from torch import Tensor

from saq_qat.quant.functional import codes, scale_of
from saq_qat.quant.grid import Grid, activation_grid, weight_grid
from saq_qat.quant.initialise import clip_level, least_squares
from tests.quant.golden import Case, cases


def squared_error(x: Tensor, step: Tensor, grid: Grid, beta: Tensor | float = 0.0) -> float:
    offset = torch.as_tensor(beta, dtype=x.dtype)
    return float((codes(x, step, grid, offset) * step + offset - x).square().sum())


def normal(count: int = 1 << 16) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


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


@pytest.mark.parametrize(("bits", "expected"), [(2, 1.50), (3, 2.06), (4, 2.52)])
def test_mse_finds_the_known_optimum_of_a_normal_distribution(bits: int, expected: float) -> None:
    assert float(clip_level(normal(), weight_grid("saq", bits), "mse")) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
    "grid",
    [
        weight_grid("saq", 2),
        weight_grid("symmetric", 4),
        activation_grid("saq", 4, signed=False),
        activation_grid("saq", 8, signed=True),
    ],
    ids=Grid.describe,
)
@pytest.mark.parametrize("shape", ["normal", "laplace", "relu", "one outlier"])
def test_mse_is_as_good_as_a_dense_search(grid: Grid, shape: str) -> None:
    x = {
        "normal": normal(8192),
        "laplace": normal(8192).sign() * -torch.linspace(0.001, 1, 8192).log(),
        "relu": normal(8192).relu(),
        "one outlier": torch.cat([normal(8191), torch.tensor([8.0])]),
    }[shape]
    reach = float(x.abs().max())
    steps = torch.linspace(0.01, 1, 600) * reach / grid.unit
    dense = min(squared_error(x, step, grid) for step in steps)
    ours = squared_error(x, scale_of(clip_level(x, grid, "mse"), grid.unit), grid)
    assert ours <= dense * 1.02


@pytest.mark.parametrize("method", ["max", "mse"])
@pytest.mark.parametrize("x", [torch.zeros(5), -torch.ones(5)])
def test_where_nothing_would_be_quantized_the_clip_level_is_one(x: Tensor, method: str) -> None:
    grid = activation_grid("saq", 4, signed=False)
    assert clip_level(x, grid, method) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("case", cases("lsq/"), ids=lambda case: case.name)
def test_least_squares_is_no_worse_than_the_reference(case: Case) -> None:
    x = case[case.input]
    grid = (
        weight_grid("lsq", case.bits, paper=True)
        if case.input == "w"
        else activation_grid("lsq", case.bits, signed="/act_signed" in case.name)
    )
    step, beta = least_squares(x, grid, offset="beta" in case)
    assert (beta is not None) == ("beta" in case)
    theirs = squared_error(x, case["alpha"], grid, case.get("beta", 0.0))
    assert squared_error(x, step, grid, 0.0 if beta is None else beta) <= 1.01 * theirs


@pytest.mark.parametrize("offset", [False, True])
def test_least_squares_of_a_constant_is_finite(offset: bool) -> None:
    step, beta = least_squares(torch.zeros(4), activation_grid("lsq", 4, signed=True), offset=offset)
    assert step == 1
    assert beta is None or beta == 0


def test_least_squares_recovers_a_grid_it_is_given() -> None:
    grid = activation_grid("lsq", 3, signed=False)
    x = torch.arange(8.0) * 0.25
    step, _ = least_squares(x, grid, offset=False)
    assert float(step) == pytest.approx(0.25)
