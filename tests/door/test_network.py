"""A network of the caller's own, quantized in memory: what it is, what it leaves alone, what it refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import saq_qat as sq
from saq_qat.errors import DataError, LegalityError, RecipeError
from saq_qat.quant.network import calibrate, quantize
from saq_qat.recipe.schema import ActivationQuantizer, Deploy, Quant, WeightQuantizer
from tests.train.small_network import SmallNetwork

SIDE = 8


def images(count: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return SmallNetwork(5)


@pytest.fixture(scope="module")
def net(model: nn.Module) -> sq.QuantizedNetwork:
    return sq.quantize(model, images(), weight_bits=3)


def test_it_is_what_a_recipe_would_make_of_the_network(model: nn.Module, net: sq.QuantizedNetwork) -> None:
    quant = Quant(weight=WeightQuantizer(bits=3), activation=ActivationQuantizer(bits=3))
    expected, plan = quantize(copy.deepcopy(model), quant, ("onnxruntime",), image=(3, SIDE, SIDE))
    calibrate(expected, [images()])
    found = net.network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    assert [layer.bits for layer in net.plan.layers] == [layer.bits for layer in plan.layers] == [8, 3, 8]
    assert (net.quant, net.image, net.classes) == (quant, (3, SIDE, SIDE), 5)
    assert net.origin == "tests.train.small_network:SmallNetwork"


def test_the_float_network_is_left_as_it_is(model: nn.Module) -> None:
    before, mode = copy.deepcopy(model.state_dict()), model.training
    made = sq.quantize(model.eval(), images())
    assert not made.training and not model.training
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.train(mode)


def test_it_is_an_ordinary_module(net: sq.QuantizedNetwork) -> None:
    other = copy.deepcopy(net)
    with torch.no_grad():
        next(other.parameters()).zero_()
    assert not torch.equal(other.eval()(images(2)), net.eval()(images(2)))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(images(2)), net(images(2)))
    loss = F.cross_entropy(other.train()(images(4)), torch.zeros(4).long())
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, list(other.parameters())))


def test_more_batches_place_the_clip_levels_by_all_of_them(model: nn.Module) -> None:
    one = sq.quantize(model, images(seed=1)).state_dict()
    two = sq.quantize(model, [images(seed=1), 3 * images(seed=2)]).state_dict()
    assert any(not torch.equal(one[name], two[name]) for name in one if "quantizers" in name)


def test_sections_of_a_recipe_say_all_that_a_recipe_can(model: nn.Module) -> None:
    quant = Quant(weight=WeightQuantizer(bits=2), activation=ActivationQuantizer(bits=4), edge_bits=4)
    net = sq.quantize(model, images(), quant=quant, deploy=Deploy(targets=("tensorrt",)))
    assert [layer.bits for layer in net.plan.layers] == [4, 2, 4]
    assert net.deploy.targets == ("tensorrt",)


def test_the_deploy_view_computes_with_integers_and_shares_nothing(net: sq.QuantizedNetwork) -> None:
    view = sq.lower(net)
    codes = [b for b in view.buffers() if b.dtype == torch.int8]
    assert len(codes) == 3
    near = (view(images(4)) - net.eval()(images(4))).abs().max()
    assert near < 0.1 * net(images(4)).abs().max()
    before = view(images(4))
    with torch.no_grad():
        for parameter in (changed := copy.deepcopy(net)).parameters():
            parameter.mul_(2)
    assert torch.equal(before, view(images(4))) and changed is not net


def test_a_folded_network_trains_with_rounded_biases_and_is_folded_once(net: sq.QuantizedNetwork) -> None:
    folded = sq.fold(net)
    assert (folded.form, net.form) == ("deploy", "quantized")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.allclose(folded.eval()(images(4)), sq.lower(folded)(images(4)), atol=1e-5)
    with pytest.raises(RecipeError, match="folded once"):
        sq.fold(folded)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class Dense(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_what_cannot_be_quantized_is_refused(model: nn.Module) -> None:
    with pytest.raises(LegalityError, match="Branching"):
        sq.quantize(Branching(), images())
    with pytest.raises(RecipeError, match=r"gives a tensor \(2, 3, 8, 8\) for 2 images"):
        sq.quantize(Dense(), images())
    with pytest.raises(RecipeError, match=r"quantize: weight\.bits: must be at most 8 \(got 9\)"):
        sq.quantize(model, images(), weight_bits=9)
    quant = Quant(weight=WeightQuantizer(bits=3), activation=ActivationQuantizer(bits=3))
    with pytest.raises(RecipeError, match="weight_bits, or the section quant"):
        sq.quantize(model, images(), weight_bits=3, quant=quant)
    with pytest.raises(RecipeError, match="targets, or the section deploy"):
        sq.quantize(model, images(), targets=("tensorrt",), deploy=Deploy())
    with pytest.raises(DataError, match="at least one batch"):
        sq.quantize(model, [])
    with pytest.raises(DataError, match="squares"):
        sq.quantize(model, images()[0])
    with pytest.raises(DataError, match=r"of \(2, 1, 8, 8\) its forward raised RuntimeError: .*3 channels"):
        sq.quantize(model, images()[:, :1])


def test_sections_may_be_dicts_as_a_recipe_has_them(model: nn.Module) -> None:
    quant = {"weight": {"bits": 2}, "activation": {"bits": 4}, "edge_bits": 4}
    net = sq.quantize(model, images(), quant=quant, deploy={"targets": ["tensorrt"]})
    assert net.quant == Quant(
        weight=WeightQuantizer(bits=2), activation=ActivationQuantizer(bits=4), edge_bits=4
    )
    assert net.deploy == Deploy(targets=("tensorrt",))


def test_sections_that_break_a_rule_are_refused(model: nn.Module) -> None:
    with pytest.raises(RecipeError, match=r"quantize: quant: weight\.bits: must be at most 8 \(got 9\)"):
        sq.quantize(model, images(), quant={"weight": {"bits": 9}, "activation": {"bits": 4}})
    with pytest.raises(RecipeError, match=r"quantize: deploy: target: unknown key"):
        sq.quantize(model, images(), deploy={"target": ["tensorrt"]})
    with pytest.raises(RecipeError, match=r"quant must be a section of a recipe, a dict such as .*got int"):
        sq.quantize(model, images(), quant=4)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(RecipeError, match=r"deploy must be .*schema\.Deploy; got Quant"):
        sq.quantize(model, images(), deploy=sq.quantize(model, images()).quant)  # type: ignore[arg-type]  # wrong on purpose


def test_one_target_needs_no_tuple(model: nn.Module) -> None:
    assert sq.quantize(model, images(), targets="onnxruntime").deploy.targets == ("onnxruntime",)
    with pytest.raises(RecipeError, match=r"quantize: targets: must be a list \(got 3\)"):
        sq.quantize(model, images(), targets=3)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(RecipeError, match=r"targets.*onnxrt"):
        sq.quantize(model, images(), targets="onnxrt")  # type: ignore[arg-type]  # wrong on purpose


def test_labels_beside_the_example_change_nothing(model: nn.Module) -> None:
    alone = sq.quantize(model, images()).state_dict()
    beside = sq.quantize(model, (images(), torch.zeros(16).long())).state_dict()
    assert all(torch.equal(alone[name], value) for name, value in beside.items())


def test_a_network_is_quantized_once_and_first(model: nn.Module, net: sq.QuantizedNetwork) -> None:
    with pytest.raises(RecipeError, match="quantized once"):
        sq.quantize(net, images())
    with pytest.raises(RecipeError, match=r"Module; got the class SmallNetwork\. Make one"):
        sq.quantize(SmallNetwork, images())  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(RecipeError, match="Module; got function"):
        sq.quantize(images, images())  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(RecipeError, match=r"lower takes .*SmallNetwork.*first: lower\(sq\.quantize"):
        sq.lower(model)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(RecipeError, match=r"fold takes .*SmallNetwork.*first: fold\(sq\.quantize"):
        sq.fold(model)  # type: ignore[arg-type]  # wrong on purpose
