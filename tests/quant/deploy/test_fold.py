"""BatchNorm folded into layers: codes that never change, scales, biases on their integer grid."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from saq_qat.errors import ArtifactError
from saq_qat.quant.deploy.fold import (
    FoldedLayer,
    batch_norm_affine,
    bias_codes,
    bias_scale,
    fold_layer,
    refinement,
)
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid
from saq_qat.quant.numerics.layers import QuantConv2d
from saq_qat.quant.numerics.quantizer import Quantizer

UNSIGNED = activation_grid("saq", 4, signed=False)
IMAGE = activation_grid("symmetric", 8, signed=True)


def layer(kind: str = "saq", bits: int = 4, *, bias: bool = True, paper: bool = False) -> QuantConv2d:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, bias=bias)
    result = QuantConv2d(conv, Quantizer(weight_grid(kind, bits, paper=paper), bits=bits), normalize=True)
    result.weight_quantizer.initialise(result.quantizer_input().detach())
    return result


def norm(gains: list[float]) -> nn.BatchNorm2d:
    torch.manual_seed(1)
    result = nn.BatchNorm2d(len(gains))
    assert result.running_mean is not None and result.running_var is not None
    result.running_mean.normal_()
    result.running_var.uniform_(0.5, 2)
    nn.init.normal_(result.bias)
    result.weight.data.copy_(torch.tensor(gains))
    return result.eval()


def channels(x: Tensor) -> Tensor:
    return x.reshape(-1, 1, 1, 1)


def test_gain_and_shift_are_the_batch_norm_of_evaluation() -> None:
    bn = norm([1.0, -2.0, 0.0]).double()
    gain, shift = batch_norm_affine(bn)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(gain.reshape(3, 1, 1) * x + shift.reshape(3, 1, 1), bn(x))


def test_a_batch_norm_without_affine_parameters_folds_too() -> None:
    bn = nn.BatchNorm2d(2, affine=False)
    gain, shift = batch_norm_affine(bn)
    torch.testing.assert_close(gain, torch.full((2,), (1 + bn.eps) ** -0.5, dtype=torch.float64))
    assert not shift.any()


def test_a_batch_norm_without_statistics_cannot_be_folded() -> None:
    with pytest.raises(ArtifactError, match="track_running_stats=True"):
        batch_norm_affine(nn.BatchNorm2d(2, track_running_stats=False))


@pytest.mark.parametrize(
    ("kind", "bits", "grid", "expected"),
    [
        ("saq", 2, UNSIGNED, 32),
        ("saq", 3, UNSIGNED, 16),
        ("saq", 4, UNSIGNED, 8),
        ("saq", 4, None, 8),
        ("symmetric", 4, UNSIGNED, 16),
        ("lsq", 4, UNSIGNED, 8),
        ("symmetric", 8, IMAGE, 1),
        ("saq", 4, IMAGE, 4),
        ("saq", 6, IMAGE, 1),
    ],
)
def test_refinement_fills_int8_and_leaves_room_for_pairs_of_products(
    kind: str, bits: int, grid: Grid | None, expected: int
) -> None:
    assert refinement(layer(kind, bits), grid, refine=True) == expected
    assert refinement(layer(kind, bits), grid, refine=False) == 1
    if grid is not None and bits < 8:
        assert 2 * grid.largest_stored * layer(kind, bits).weight_quantizer.grid.maximum * expected <= 32767


@pytest.mark.parametrize(("kind", "bits"), [("saq", 2), ("saq", 4), ("symmetric", 8), ("lsq", 4), ("lsq", 8)])
@pytest.mark.parametrize("factor", [1, 4])
def test_codes_never_change_but_for_sign_and_refinement(kind: str, bits: int, factor: int) -> None:
    subject, factor = layer(kind, bits), 1 if bits == 8 else factor
    gains = [1.5, -0.5, 2.0, -1.0, 1e-3]
    folded = fold_layer(subject, norm(gains), factor)
    assert folded.codes.dtype == torch.int8
    sign = channels(torch.tensor(gains).sign())
    assert torch.equal(folded.codes.float(), subject.weight_codes() * sign * factor)


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_folded_layer_is_the_layer_with_its_batch_norm(with_bias: bool) -> None:
    subject, bn = layer(bias=with_bias), norm([1.5, -0.5, 2.0, -1.0, 0.1])
    folded = fold_layer(subject, bn, 8)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    weight = folded.codes.double() * channels(folded.scale.double())
    ours = torch.nn.functional.conv2d(x, weight, folded.bias.double())
    theirs = bn.double()(subject.double()(x))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (folded.scale > 0).all()
    assert (folded.scale.dtype, folded.bias.dtype) == (torch.float32, torch.float64)


def test_without_a_batch_norm_scale_and_bias_are_the_layers_own() -> None:
    subject = layer()
    folded = fold_layer(subject, None, 1)
    assert subject.bias is not None
    assert torch.equal(folded.bias, subject.bias.detach())
    assert torch.equal(folded.scale, subject.weight_scale().expand(5))


def test_a_channel_of_zero_gain_keeps_its_bias_alone() -> None:
    bn = norm([1.0, 0.0, 1.0, 1.0, 1e-45])
    folded = fold_layer(layer(), bn, 8)
    assert not folded.codes[1].any() and not folded.codes[4].any()
    assert folded.bias[1].item() == pytest.approx(bn.bias[1].item())
    assert torch.isfinite(folded.scale).all() and (folded.scale > 0).all()


def test_weights_that_fit_no_int8_are_refused() -> None:
    for kind in ("saq", "lsq"):
        with pytest.raises(ArtifactError, match=r"do not fit int8.*quant\.grid: deploy"):
            fold_layer(layer(kind, 8, paper=True), None, 1)


@pytest.mark.parametrize("field", ["weight", "bias"])
def test_a_checkpoint_with_nan_is_refused(field: str) -> None:
    bn = norm([1.0] * 5)
    getattr(bn, field).data[2] = float("nan")
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        fold_layer(layer(), bn, 1)


def folded_of(bias: list[float], scale: float = 0.01) -> FoldedLayer:
    codes = torch.full((len(bias), 4), 7, dtype=torch.int8)
    return FoldedLayer(codes, torch.full((len(bias),), scale), torch.tensor(bias))


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8), st.floats(2**-10, 1, width=32))
def test_a_bias_is_within_half_a_step_of_its_code_or_half_of_its_22nd_bit(
    bias: list[float], input_scale: float
) -> None:
    before = folded_of(bias)
    after, codes = bias_codes(before, torch.tensor(input_scale))
    step = bias_scale(torch.tensor(input_scale), after.scale)
    assert codes.dtype == torch.int32
    assert torch.equal(after.codes, before.codes)
    error = (codes.double() * step.double() - before.bias.double()).abs()
    last_bit = torch.exp2((torch.frexp(codes.double()).exponent - 22).clamp_min(0).double())
    assert (error <= step.double() / 2 * last_bit).all()


def test_a_bias_on_a_tie_goes_to_the_even_code() -> None:
    _, codes = bias_codes(folded_of([0.5, 1.5, 2.5, -0.5], scale=1.0), torch.tensor(1.0))
    assert codes.tolist() == [0, 2, 2, 0]


def test_a_bias_too_large_for_its_step_makes_the_channel_a_constant() -> None:
    before = folded_of([1.0, 3.0e4, -3.0e4], scale=1e-6)
    after, codes = bias_codes(before, torch.tensor(1e-3))
    step = bias_scale(torch.tensor(1e-3), after.scale)
    assert after.codes[0].any() and not after.codes[1:].any()
    torch.testing.assert_close(codes.double() * step.double(), before.bias.double(), rtol=2e-6, atol=0)
    assert codes.abs().max() < 2**30 + 1


def test_the_scale_of_a_bias_is_the_float32_product_of_both_scales() -> None:
    a, b = torch.tensor(0.1), torch.tensor([0.3, 0.7])
    assert bias_scale(a, b).dtype == torch.float32
    assert torch.equal(bias_scale(a.double(), b.double()), a * b)
