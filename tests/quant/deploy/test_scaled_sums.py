"""The deploy stage in evaluation: exact sums of codes, scaled once, as the deploy view has them."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from saq_qat.quant.deploy.integer_modules import IntegerConv2d, IntegerLayer
from saq_qat.quant.deploy.view import deploy_view, fold_batch_norm
from saq_qat.quant.numerics.layers import QuantLayer, quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import ActivationQuantizer, Deploy
from tests.quant.exact import with_exact_scales
from tests.quant.networks import BranchAndConcat, NoNorm, Residual, images, policy, quantized

WITH_OFFSET = ActivationQuantizer(bits=4, kind="lsq", offset="signed")
NETWORKS = [Residual, BranchAndConcat, NoNorm]


class DropoutBefore(nn.Module):
    """A dropout between the codes and the layer that reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.dropout(self.relu(self.conv(x))))
        return x.mean((2, 3))


def signed_residual() -> nn.Module:
    """Without a ReLU, so that inputs of layers are signed."""
    return Residual(nn.Identity)


def stage_of(model: Callable[[], nn.Module], bits: int, **options: object) -> fx.GraphModule:
    return fold_batch_norm(quantized(model(), policy(bits, **options))[0]).eval()


def traffic(stage: fx.GraphModule, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What every layer reads and what it gives."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in quant_layers(stage).items():
        layer.register_forward_hook(lambda _, given, out, name=name: seen.update({name: (given[0], out)}))
    with torch.no_grad():
        stage(x)
    return seen


def exact_sums(layer: IntegerLayer, codes: Tensor) -> Tensor:
    """Accumulators in float64, which holds them and every partial sum exactly."""
    weight, bias = layer.weight.double(), layer.bias.double()
    if isinstance(layer, IntegerConv2d):
        window = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return nn.functional.conv2d(codes, weight, bias, *window)
    return nn.functional.linear(codes, weight, bias)


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_layer_gives_its_exact_integer_sums_scaled_once_bit_for_bit(
    model: type[nn.Module], bits: int
) -> None:
    stage = stage_of(model, bits)
    view = deploy_view(stage, Deploy())
    layers = 0
    for name, (given, out) in traffic(stage, images(8)).items():
        integer = view.get_submodule(name)
        assert isinstance(integer, IntegerLayer)
        if integer.bias_scale is None:
            continue
        scale = integer.bias_scale / integer.weight_scale
        sums = exact_sums(integer, (given / scale[0]).double().round())
        unit = integer.bias_scale.reshape(-1, *[1] * (integer.weight.dim() - 2))
        assert np.array_equal(out.numpy(), (sums.float() * unit).numpy()), name
        layers += 1
    assert layers >= 2


@pytest.mark.parametrize("activation", [ActivationQuantizer(bits=4), WITH_OFFSET], ids=["saq", "offset"])
@pytest.mark.parametrize("slots", [False, True])
def test_evaluation_has_the_values_and_gradients_of_training(
    slots: bool, activation: ActivationQuantizer
) -> None:
    stage = with_exact_scales(stage_of(signed_residual, 4, activation=activation))
    offsets = [
        module for module in stage.modules() if isinstance(module, Quantizer) and module.beta is not None
    ]
    assert (activation is WITH_OFFSET) == bool(offsets)
    generator = torch.Generator().manual_seed(3)
    if slots:
        for layer in quant_layers(stage).values():
            layer.open_slot()
            assert layer.slot is not None
            noise = torch.randn(layer.slot.shape, generator=generator, dtype=torch.float64)
            layer.slot.data.copy_(noise / 100)

    def trained(network: fx.GraphModule) -> tuple[Tensor, list[Tensor]]:
        out = network(images(4).double())
        found = [layer.slot for layer in quant_layers(network).values() if layer.slot is not None]
        learned = [p for p in network.parameters() if p.requires_grad] + found
        return out.detach(), list(torch.autograd.grad(out.square().sum(), learned))

    (expected, gradients), (found, others) = trained(stage.train()), trained(stage.eval())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-8, atol=1e-8)


def test_training_keeps_what_dropout_moves_off_the_grid() -> None:
    stage = stage_of(DropoutBefore, 2)
    head = stage.get_submodule("head")
    assert isinstance(head, QuantLayer) and head.folded
    stage.train()
    given, out = traffic(stage, images(4))["head"]
    expected = nn.functional.conv2d(given, head.quantized_weight())
    spread = out - expected
    torch.testing.assert_close(spread, spread[:1, :, :1, :1].expand_as(spread), rtol=1e-5, atol=1e-5)
    kept = copy.deepcopy(head).eval()
    assert not torch.allclose(kept(given, stage.get_submodule("quantizers.relu")), out, atol=1e-3)
