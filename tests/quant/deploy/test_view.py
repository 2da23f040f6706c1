"""The deploy stage and the deploy view: the same network, with its integers in place."""

import copy

import pytest
import torch
from torch import nn

from saq_qat.models.build import build_model
from saq_qat.quant.deploy.fold import absorb_offset, bias_codes, bias_scale, fold_layer
from saq_qat.quant.deploy.integer_modules import IntegerLayer
from saq_qat.quant.deploy.view import deploy_view, fold_batch_norm
from saq_qat.quant.numerics import bias as bias_module
from saq_qat.quant.numerics.bias import offset_in_bias
from saq_qat.quant.numerics.kinds.table import weight_grid
from saq_qat.quant.numerics.layers import QuantLinear, quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import Deploy, Model
from tests.quant.exact import with_exact_scales, with_unrounded_biases
from tests.quant.networks import (
    BranchAndConcat,
    Gated,
    NoNorm,
    Residual,
    images,
    policy,
    quantized,
)

DEPLOY = Deploy()


def relu6_residual() -> nn.Module:
    return Residual(nn.ReLU6)


def cifar_network() -> nn.Module:
    return build_model(Model(name="preresnet20"), 10)


NETWORKS = [Residual, relu6_residual, BranchAndConcat, Gated, NoNorm]


@pytest.mark.parametrize("model", [*NETWORKS, cifar_network])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_view_with_unrounded_biases_is_the_fake_quant_network(model: type[nn.Module], bits: int) -> None:
    network = with_exact_scales(quantized(model(), policy(bits))[0])
    view = with_unrounded_biases(deploy_view(network, DEPLOY).double(), network)
    x = images(16).double()
    torch.testing.assert_close(view(x), network(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", [*NETWORKS, cifar_network])
@pytest.mark.parametrize("refine", [True, False])
def test_the_deploy_stage_is_its_own_deploy_view(model: type[nn.Module], refine: bool) -> None:
    network, _ = quantized(model())
    stage = with_exact_scales(fold_batch_norm(network, refine_bias=refine))
    view = deploy_view(stage, Deploy(refine_bias=refine)).double()
    x = images(16).double()
    torch.testing.assert_close(view(x), stage(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", NETWORKS)
def test_folding_changes_the_network_by_the_rounding_of_biases_alone(
    model: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _ = quantized(model())
    network = with_exact_scales(network)
    stage = fold_batch_norm(copy.deepcopy(network), refine_bias=True)
    monkeypatch.setattr(bias_module, "codes_of_bias", lambda bias, step: bias.double() / step.double())
    x = images().double()
    torch.testing.assert_close(stage(x), network(x), rtol=1e-9, atol=1e-9)


def test_the_deploy_stage_has_no_batch_norm_and_learns_everything_else() -> None:
    network, _ = quantized(Residual())
    stage = fold_batch_norm(network)
    assert not [m for m in stage.modules() if isinstance(m, nn.BatchNorm2d)]
    stage.train()(images()).square().sum().backward()
    assert [name for name, p in stage.named_parameters() if p.grad is None] == []


def test_folding_twice_is_folding_once() -> None:
    stage = fold_batch_norm(quantized(Residual())[0])
    before = stage(images())
    assert torch.equal(fold_batch_norm(stage)(images()), before)


def test_a_rounded_bias_gets_the_gradient_of_the_bias_itself() -> None:
    stage = fold_batch_norm(quantized(Residual())[0])
    layer = quant_layers(stage)["conv2"]
    scale = torch.tensor(0.25)
    rounded = layer.integer_bias(scale)
    assert rounded is not None and layer.bias is not None
    step = scale * layer.channel_scales(layer.channel_gain, layer.refinement)[0]  # type: ignore[arg-type]  # a layer that has them
    torch.testing.assert_close((rounded / step).detach(), (layer.bias / step).round().detach())
    upstream = torch.randn_like(rounded)
    rounded.backward(upstream)  # type: ignore[no-untyped-call]  # torch gives it no types
    assert layer.bias.grad is not None and torch.equal(layer.bias.grad, upstream)


def test_integers_of_biases_that_hold_an_offset_are_those_that_are_deployed() -> None:
    """Of 20,000, every one: a sum of weights in float32 moves a few of them by a step."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(64, 20_000)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator) / 16)
    quantizer = Quantizer(weight_grid("saq", 4), bits=4)
    quantizer.initialise(linear.weight.detach())
    layer = QuantLinear(linear, quantizer)
    gain, bias = torch.rand(2, 20_000, generator=generator)
    layer.fold(gain - torch.where(bias > 0.5, 2.0, -1.0), bias, 8)
    scale, offset = torch.tensor(0.0371), torch.tensor(-2.93)
    assert layer.channel_gain is not None
    stored, weight_scale = layer.stored(layer.channel_gain, 8)
    held = offset_in_bias(offset, stored, weight_scale)
    folded, deployed = bias_codes(absorb_offset(fold_layer(layer, None, 8), offset), scale)
    trained = layer.integer_bias(scale, offset)
    assert trained is not None
    in_codes = (trained.detach().double() + held) / bias_scale(scale, folded.scale).double()
    assert torch.equal(in_codes.round().int(), deployed)


@pytest.mark.parametrize(("bits", "expected"), [(2, 32), (4, 8), (8, 1)])
def test_refined_biases_lie_on_a_finer_grid(bits: int, expected: int) -> None:
    network, _ = quantized(Residual(), policy(bits))
    fine, coarse = (deploy_view(network, Deploy(refine_bias=refine)) for refine in (True, False))
    for name in ("conv1", "conv2"):
        a, b = fine.get_submodule(name), coarse.get_submodule(name)
        assert isinstance(a, IntegerLayer) and isinstance(b, IntegerLayer)
        assert (a.refinement, b.refinement) == (expected, 1)
        assert torch.equal(a.weight, b.weight * expected)
        assert torch.equal(a.weight_scale * expected, b.weight_scale)
        assert (a.float_bias() - b.float_bias()).abs().max() <= b.bias_scale.max() / 2 + a.bias_scale.max()  # type: ignore[union-attr]  # layers with biases


def test_a_dead_channel_with_a_large_bias_stays_a_constant_in_stage_and_view() -> None:
    network, _ = quantized(Residual())
    norm = network.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight[0], norm.bias[0] = 0.0, 1000.0
    expected = network(images())
    view = deploy_view(network, DEPLOY)
    stage = fold_batch_norm(network)
    assert torch.isfinite(stage(images())).all()
    integer = view.get_submodule("conv1")
    assert isinstance(integer, IntegerLayer) and not integer.weight[0].any()
    torch.testing.assert_close(integer.float_bias()[0].item(), 1000.0, rtol=1e-5, atol=0)
    rounded = quant_layers(stage)["conv1"].integer_bias(view.get_buffer("quantizers.stem_relu.scale"))
    assert rounded is not None and rounded[0] == integer.float_bias()[0]
    torch.testing.assert_close(stage(images()), expected, rtol=0.1, atol=0.2)
