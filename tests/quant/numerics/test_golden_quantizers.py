"""Fake-quant and all its gradients against quantizers that others wrote (tests/golden/README.md)."""

import pytest
import torch
from torch import Tensor

from saq_qat.quant.numerics.functional import fake_quantize
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.kinds.lsq import LSQ
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid
from saq_qat.quant.numerics.layers import QuantLinear
from saq_qat.quant.numerics.quantizer import Quantizer
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
    out.backward(case["G"])  # type: ignore[no-untyped-call]  # torch gives it no types
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


def tie_of_a_step(v: Tensor, case: Case) -> Tensor:
    """Where rounding meets a tie: nowhere in float64, within 1e-4 of a code in float32."""
    if v.dtype == torch.float64:
        return torch.zeros_like(v, dtype=torch.bool)
    code = (v - case.get("beta", 0.0)) / case["alpha"]
    return ((code - code.floor()) - 0.5).abs() < 1e-4


@pytest.mark.parametrize("case", cases("lsq/"), ids=lambda case: case.name)
def test_lsq_quantizers_equal_the_reference(case: Case) -> None:
    v, grid = case[case.input], lsq_grid(case)
    ties = tie_of_a_step(v, case)
    assert int(ties.sum()) <= 1
    assert float(case["gscale"]) == pytest.approx((v.numel() * grid.maximum) ** -0.5)
    assert_matches(case, v, grid, ties, gradient_scale=float(case["gscale"]))


def lsq_quantizer(case: Case) -> Quantizer:
    """Placed as the reference places it."""
    quantizer = Quantizer(
        lsq_grid(case), bits=case.bits, kind=LSQ, offset="beta" in case, method="least_squares"
    ).to(case.dtype)
    quantizer.initialise(case[case.input])
    return quantizer


@pytest.mark.parametrize("case", cases("lsq/"), ids=lambda case: case.name)
def test_least_squares_starts_where_the_reference_starts(case: Case) -> None:
    quantizer = lsq_quantizer(case)
    case.assert_close(quantizer.alpha, "alpha")
    if quantizer.beta is not None:
        case.assert_close(quantizer.beta, "beta")


@pytest.mark.parametrize("case", cases("lsq/weight"), ids=lambda case: case.name)
@pytest.mark.parametrize("slot", [False, True])
def test_a_linear_layer_of_tokens_learns_its_weight_and_step_as_the_reference(case: Case, slot: bool) -> None:
    """Tokens (N, T, C) that are unit vectors make the gradient of the output that of the quantized weight."""
    linear = torch.nn.Linear(16, 24, dtype=case.dtype)
    linear.weight.data.copy_(case["w"])
    layer = QuantLinear(linear, lsq_quantizer(case))
    opened = layer.open_slot() if slot else None
    tokens = torch.eye(16, dtype=case.dtype).reshape(2, 8, 16)
    torch.autograd.backward(layer(tokens), case["G"].T.reshape(2, 8, 24))
    assert layer.weight.grad is not None and layer.weight_quantizer.alpha.grad is not None
    case.assert_close(layer.quantized_weight(), "out")
    case.assert_close(layer.weight.grad, "grad_w")
    case.assert_close(layer.weight_quantizer.alpha.grad, "grad_alpha")
    if opened is not None:
        assert opened.grad is not None
        torch.testing.assert_close(opened.grad, case["G"])


@pytest.mark.parametrize("case", cases("lsq/weight"), ids=lambda case: case.name)
def test_a_perturbation_leaves_the_straight_through_gradients_of_a_weight_where_they_were(case: Case) -> None:
    """Pass 2 of Cases 1 and 3: Q(w) + epsilon, gradients at the unmoved w; of Case 2: Q(w + epsilon)."""
    linear = torch.nn.Linear(16, 24, dtype=case.dtype)
    linear.weight.data.copy_(case["w"])
    layer = QuantLinear(linear, lsq_quantizer(case))
    epsilon = 0.01 * case["G"]
    layer.slot = epsilon
    torch.autograd.backward(layer.quantized_weight(), case["G"])
    assert layer.weight.grad is not None and layer.weight_quantizer.alpha.grad is not None
    case.assert_close(layer.quantized_weight() - epsilon, "out")
    case.assert_close(layer.weight.grad, "grad_w")
    case.assert_close(layer.weight_quantizer.alpha.grad, "grad_alpha")

    layer.slot, layer.shift = None, epsilon
    layer.weight.grad = None
    torch.autograd.backward(layer.quantized_weight(), case["G"])
    inside = layer.weight_quantizer.clip_mask(case["w"] + epsilon)
    torch.testing.assert_close(layer.weight.grad, case["G"] * inside)
