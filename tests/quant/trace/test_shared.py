"""Layers that are used several times: a path a use, one layer, one weight."""

import copy

import torch
from torch import Tensor, fx, nn

from saq_qat.quant.deploy.view import deploy_view, fold_batch_norm
from saq_qat.quant.network import calibrate, quantize
from saq_qat.quant.numerics.layers import quant_layers
from saq_qat.recipe.schema import ActivationQuantizer, Deploy, Override, Quant, WeightQuantizer

QUANT = Quant(weight=WeightQuantizer(kind="saq", bits=4), activation=ActivationQuantizer(kind="saq", bits=4))
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Levels(nn.Module):
    """One convolution on two levels with a BatchNorm each, and a third with the same weight as another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.shared, self.tied = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.tied.weight = self.shared.weight
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.relu(self.stem(x))
        coarse = nn.functional.max_pool2d(fine * 3 - 1, 2)
        one, two = (
            torch.relu(norm(self.shared(y))) for norm, y in zip(self.norms, (fine, coarse), strict=True)
        )
        result: Tensor = self.head(one.mean((2, 3)) + two.mean((2, 3)) + self.tied(coarse).mean((2, 3)))
        return result


def quantized(quant: Quant = QUANT) -> fx.GraphModule:
    network, _ = quantize(Levels(), quant, ("onnxruntime",), image=(3, 8, 8))
    calibrate(network, [IMAGES])
    return network


def test_every_use_has_a_path_and_its_own_input_but_one_weight() -> None:
    network = quantized()
    layers = quant_layers(network, every_use=True)
    assert layers["shared"] is layers["shared_use_2"]
    assert layers["tied"].weight is layers["shared"].weight
    assert layers["tied"].weight_quantizer is layers["shared"].weight_quantizer
    assert set(layers) - set(quant_layers(network)) == {"shared_use_2"}


def test_gradients_of_all_uses_reach_the_weight() -> None:
    network, model = quantized(), Levels()
    network(IMAGES).sum().backward()
    assert quant_layers(network)["shared"].weight.grad is not None
    assert len(list(network.parameters())) == len({id(p) for p in network.parameters()})
    assert {"shared.weight", "shared_use_2.weight"} <= set(network.state_dict())
    assert "shared_use_2.weight" not in model.state_dict()


def test_the_deploy_stage_folds_a_norm_into_each_use() -> None:
    network = quantized().train()
    network(IMAGES)
    before = network.eval()(IMAGES)
    folded = fold_batch_norm(copy.deepcopy(network))
    layers = quant_layers(folded, every_use=True)
    one, two = layers["shared"], layers["shared_use_2"]
    assert one is not two and one.weight is two.weight
    assert one.bias is not two.bias and one.channel_gain is not two.channel_gain
    torch.testing.assert_close(folded.eval()(IMAGES), before, atol=0.1, rtol=0.1)


def test_the_deploy_view_has_both_uses() -> None:
    view = deploy_view(quantized().eval(), Deploy())
    modules = dict(view.named_modules())
    assert torch.equal(modules["shared"].weight.abs(), modules["shared_use_2"].weight.abs())


def test_an_override_of_a_layer_is_for_all_its_uses() -> None:
    network = quantized(QUANT.model_copy(update={"overrides": (Override(match="shared", weight_bits=2),)}))
    assert quant_layers(network)["shared"].weight_quantizer.bits == 2
