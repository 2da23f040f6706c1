"""Quantized layers: normalisation, slot, shift, codes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.errors import LegalityError
from saq_qat.quant.numerics.kinds.lsq import LSQ
from saq_qat.quant.numerics.kinds.saq import SAQ
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid
from saq_qat.quant.numerics.layers import QuantConv2d, QuantLayer, QuantLinear, quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer


def conv(*, bits: int = 4, normalize: bool = True, rescale_std: bool = False, **options: Any) -> QuantConv2d:
    torch.manual_seed(0)
    float_layer = nn.Conv2d(4, 6, 3, **options)
    quantizer = Quantizer(weight_grid("saq", bits), bits=bits)
    return QuantConv2d(float_layer, quantizer, normalize=normalize, rescale_std=rescale_std)


def images() -> Tensor:
    return torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(1))


def test_the_normalised_weight_has_mean_zero_and_deviation_one() -> None:
    v = conv().quantizer_input()
    assert v.mean().item() == pytest.approx(0, abs=1e-6)
    assert v.std().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(conv(normalize=False).quantizer_input(), conv().weight)


def test_given_statistics_are_used_for_the_weight_and_not_for_a_shifted_one() -> None:
    layer, fresh = conv(rescale_std=True), conv(rescale_std=True)
    layer.set_statistics(0.25, 2.0)
    assert torch.equal(layer.quantizer_input(), (layer.weight - 0.25) / 2.0)
    assert torch.equal(layer.weight_scale(), layer.weight_quantizer.scale * 2.0)
    layer.shift = fresh.shift = torch.full_like(layer.weight, 0.1)
    layer.shift_space = fresh.shift_space = "raw"
    ratio = layer.quantized_weight() / fresh.quantized_weight()
    torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0 / float(fresh.weight_deviation())))


def test_statistics_of_the_normalisation_carry_no_gradient() -> None:
    layer = conv()
    torch.autograd.backward(layer.quantizer_input().sum())
    assert layer.weight.grad is not None
    torch.testing.assert_close(
        layer.weight.grad, torch.full_like(layer.weight, 1 / float(layer.weight_deviation()))
    )


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 1, 1)])
def test_a_constant_weight_gives_numbers_not_nan(shape: tuple[int, ...]) -> None:
    float_layer = nn.Conv2d(1, shape[0], 1)
    nn.init.constant_(float_layer.weight, 0.3)
    layer = QuantConv2d(float_layer, Quantizer(weight_grid("saq", 4), bits=4), normalize=True)
    assert layer.weight_deviation() == 1
    assert torch.isfinite(layer(torch.ones(1, 1, 2, 2))).all()


def test_codes_times_scale_are_the_weight_it_computes_with() -> None:
    for rescale in (False, True):
        layer = conv(rescale_std=rescale)
        torch.testing.assert_close(layer.weight_codes() * layer.weight_scale(), layer.quantized_weight())


def test_forward_is_the_convolution_of_the_quantized_weight() -> None:
    layer = conv(stride=2, padding=1, dilation=2, groups=2)
    expected = F.conv2d(images(), layer.quantized_weight(), layer.bias, 2, 1, 2, 2)
    assert torch.equal(layer(images()), expected)


def test_a_linear_layer_works_on_any_leading_shape() -> None:
    layer = QuantLinear(nn.Linear(4, 3), Quantizer(weight_grid("saq", 4), bits=4))
    assert layer(torch.randn(2, 7, 4)).shape == (2, 7, 3)


def test_the_slot_collects_the_gradient_of_the_quantized_weight() -> None:
    layer = conv()
    slot = layer.open_slot()
    weight = layer.quantized_weight()
    upstream = torch.randn_like(weight)
    weight.backward(upstream)  # type: ignore[no-untyped-call]  # torch gives it no types
    assert slot.grad is not None and layer.weight.grad is not None
    assert torch.equal(slot.grad, upstream)
    expected = upstream * layer.clip_mask() / layer.weight_deviation()
    torch.testing.assert_close(layer.weight.grad, expected)


def test_the_slot_is_added_to_the_quantized_weight_and_is_no_state() -> None:
    layer = conv()
    before = layer.quantized_weight()
    layer.open_slot().data.fill_(0.25)
    assert torch.equal(layer.quantized_weight(), before + 0.25)
    assert "slot" not in layer.state_dict() and "slot" not in dict(layer.named_parameters())
    layer.close()
    assert torch.equal(layer.quantized_weight(), before)


def test_a_normalised_shift_moves_what_is_quantized() -> None:
    layer = conv()
    shift = torch.full_like(layer.weight, 0.3)
    layer.shift, layer.shift_space = shift, "normalised"
    assert torch.equal(layer.quantized_weight(), layer.weight_quantizer(layer.quantizer_input() + shift))


def test_a_raw_shift_takes_the_statistics_anew() -> None:
    layer = conv()
    shift = torch.randn_like(layer.weight)
    layer.shift, layer.shift_space = shift, "raw"
    moved = layer.weight + shift
    expected = layer.weight_quantizer((moved - moved.mean()) / moved.std())
    torch.testing.assert_close(layer.quantized_weight(), expected)


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_padding_other_than_a_number_of_zeros_is_refused(options: dict[str, object]) -> None:
    float_layer = nn.Conv2d(1, 1, 3, **options)  # type: ignore[arg-type]  # options of two types
    with pytest.raises(LegalityError, match=r"pad with a number of zeros; got .*ZeroPad2d"):
        QuantConv2d(float_layer, Quantizer(weight_grid("saq", 4), bits=4))


# zero padding of an input with an offset


def offset_quantizer(beta: float, *, lsq: bool = False) -> Quantizer:
    grid = activation_grid("lsq" if lsq else "saq", 3, signed=False)
    quantizer = Quantizer(grid, bits=3, offset=True, kind=LSQ if lsq else SAQ, counts_from_zero=True).double()
    quantizer.alpha.data.fill_(0.35 if lsq else 7 * 0.35)
    assert quantizer.beta is not None
    quantizer.beta.data.fill_(beta)
    return quantizer


def padded_before_it_is_quantized(layer: QuantConv2d, quantizer: Quantizer, x: Tensor) -> Tensor:
    """The specification for autograd alone: zeros around x, then codes from beta, then no padding."""
    alpha, beta, grid = quantizer.alpha, quantizer.beta, quantizer.grid
    assert beta is not None
    scale = alpha.abs() / grid.unit
    r = (F.pad(x, (layer.padding[1],) * 2 + (layer.padding[0],) * 2) - beta) / scale
    low, high = (r * 0 + bound for bound in (grid.minimum, grid.maximum))
    clipped = torch.where(r < grid.minimum, low, torch.where(r > grid.maximum, high, r))
    values = (clipped + (clipped.round() - clipped).detach()) * scale + beta
    return F.conv2d(
        values, layer.quantized_weight(), layer.bias, layer.stride, 0, layer.dilation, layer.groups
    )


OPTIONS = [
    {"padding": 1},
    {"padding": (2, 0), "stride": 2, "bias": False},
    {"padding": 1, "groups": 2, "normalize": True},
    {"padding": 2, "dilation": 2, "rescale_std": True, "normalize": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("beta", [-0.17, -0.6, 0.0, 0.3, -0.35 * 7 - 0.2, -9.0])
@pytest.mark.parametrize("lsq", [False, True])
def test_padding_an_input_with_an_offset_is_padding_before_it_is_quantized(
    options: dict[str, Any], beta: float, lsq: bool
) -> None:
    layer, quantizer = conv(**({"normalize": False} | options)).double(), offset_quantizer(beta, lsq=lsq)
    layer.open_slot().data.normal_(0, 0.1, generator=torch.Generator().manual_seed(3))
    x = (images() * 1.5).double().requires_grad_()
    ours = layer(quantizer(x), quantizer)
    theirs = padded_before_it_is_quantized(layer, quantizer, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    inputs = [x, layer.weight, layer.slot, quantizer.beta, quantizer.alpha]
    inputs += [] if layer.bias is None else [layer.bias]
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    own, expected = (list(torch.autograd.grad(out, inputs, upstream)) for out in (ours, theirs))  # type: ignore[arg-type]  # all are tensors here
    expected[4] = expected[4] * (x.numel() * 7) ** -0.5 if lsq else expected[4]
    torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-10)


def test_without_padding_the_offset_is_no_concern_of_the_layer() -> None:
    layer, quantizer = conv().double(), offset_quantizer(-0.17)
    values = quantizer(images().double())
    assert torch.equal(layer(values, quantizer), layer(values))


def test_quant_layers_are_found_by_name_in_order() -> None:
    network = nn.Sequential(conv(), nn.ReLU(), nn.Sequential(conv()))
    found = quant_layers(network)
    assert list(found) == ["0", "2.0"]
    assert all(isinstance(layer, QuantLayer) for layer in found.values())


def test_the_deviation_of_millions_of_weights_is_that_of_float64() -> None:
    """One float32 sum over them would be off in the fourth digit."""
    float_layer = nn.Conv2d(960, 1024, 3)
    with torch.no_grad():
        float_layer.weight.normal_(0, 0.015, generator=torch.Generator().manual_seed(0))
    layer = QuantConv2d(float_layer, Quantizer(weight_grid("saq", 4), bits=4), normalize=True)
    exact = float(float_layer.weight.detach().double().std())
    assert float(layer.weight_deviation()) == pytest.approx(exact, rel=1e-6)
