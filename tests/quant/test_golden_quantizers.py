"""Fake-quant and all its gradients against quantizers that others wrote (tests/golden/README.md)."""

import pytest
import torch
from torch import Tensor

from saq_qat.quant.functional import fake_quantize
from saq_qat.quant.grid import Grid, activation_grid, weight_grid
from tests.quant.golden import Case, cases


def saq_grid(case: Case) -> Grid:
    if "/act/" in case.name:
        return activation_grid("saq", case.bits, signed=False, paper=True)
    return weight_grid("saq", case.bits, paper=True)


def lsq_grid(case: Case) -> Grid:
    if "/weight" in case.name:
        return weight_grid("lsq", case.bits, paper=True)
    return activation_grid("lsq", case.bits, signed="/act_signed" in case.name)


def tie_of_the_paper(v: Tensor, alpha: Tensor, grid: Grid) -> Tensor:
    """Where the paper's order of operations meets a rounding tie within 1e-12 (1e-5 in float32)."""
    r = v / alpha.abs()
    level = (r.clamp(-1, 1) + 1) / 2 * grid.unit if grid.signed else r.clamp(0, 1) * grid.unit
    return ((level - level.floor()) - 0.5).abs() < (1e-12 if v.dtype == torch.float64 else 1e-5)


def assert_matches(case: Case, v: Tensor, grid: Grid, ties: Tensor, *, gradient_scale: float = 1.0) -> None:
    """Output and every gradient; a code on a tie may be its neighbour."""
    x = v.clone().requires_grad_()
    alpha = case["alpha"].reshape(()).requires_grad_()
    beta = case["beta"].reshape(()).requires_grad_() if "beta" in case else None
    out = fake_quantize(x, alpha, grid, beta=beta, gradient_scale=gradient_scale)
    case.assert_close(out, "out", ~ties)
    out.backward(case["G"])  # type: ignore[no-untyped-call]
    assert x.grad is not None and alpha.grad is not None
    deviation = case.get("std_unbiased", 1.0)
    case.assert_close(x.grad / deviation, f"grad_{case.input}")
    # a code that differs on a tie moves the clip level's gradient by what it moves the output
    moved = (case["G"] * (case["out"].reshape(out.shape) - out.detach()))[ties].sum() / alpha.detach()
    case.assert_close(alpha.grad + moved * gradient_scale, "grad_alpha")
    if beta is not None:
        assert beta.grad is not None
        case.assert_close(beta.grad, "grad_beta")


@pytest.mark.parametrize("case", [*cases("saq/weight/"), *cases("saq/act/")], ids=lambda case: case.name)
def test_saq_quantizers_equal_the_authors(case: Case) -> None:
    grid, v = saq_grid(case), case[case.input]
    assert_matches(case, v, grid, tie_of_the_paper(v, case["alpha"], grid))


@pytest.mark.parametrize("case", cases("saq/weight_wn/"), ids=lambda case: case.name)
def test_saq_weights_with_normalisation_equal_the_authors(case: Case) -> None:
    grid, v = saq_grid(case), (case["w"] - case["mean"]) / case["std_unbiased"]
    assert_matches(case, v, grid, tie_of_the_paper(v, case["alpha"], grid))


@pytest.mark.parametrize("case", cases("lsq/"), ids=lambda case: case.name)
def test_lsq_quantizers_equal_the_reference(case: Case) -> None:
    v = case[case.input]
    no_ties = torch.zeros_like(v, dtype=torch.bool)
    assert_matches(case, v, lsq_grid(case), no_ties, gradient_scale=float(case["gscale"]))
