"""The trained network and its deploy view are one function, and whatever lowering gets wrong is found."""

import copy
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, fx, nn

from saq_qat.quant.deploy.integer_modules import ChannelAffine, IntegerConv2d, IntegerLinear, Quantize
from saq_qat.quant.deploy.view import deploy_view, fold_batch_norm
from saq_qat.quant.numerics.quantizer import Added, Averaged, Quantizer
from saq_qat.recipe.schema import Deploy, Quant
from saq_qat_export.proof.function import compare_function, function_comparison
from tests.export.networks import CLASSES, SIDE, Lowered, conv_block, lower, policy, small, smooth_images
from tests.export.test_tokens import transformer


def images(side: int = SIDE, count: int = 2) -> Tensor:
    return smooth_images(count, side, seed=1)


def wrong(network: fx.GraphModule, view: fx.GraphModule, batch: Tensor) -> list[str]:
    """Names of the tensors that differ."""
    found = compare_function(network, view, [batch])
    return [tensor.name for tensor in found if tensor.mismatches]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_network_and_its_deploy_view_are_the_same_function(bits: int) -> None:
    found = small(bits, bits)
    comparison = function_comparison(found.network, found.view, [images()])
    assert comparison.passed and comparison.hard and comparison.mismatches == 0, comparison.detail
    names = {tensor.name for tensor in comparison.tensors}
    assert {"stem.0", "shortcut.0", "image.codes", "head.fc", "head.fc.bias", "logits"} <= names


@pytest.mark.parametrize("offset", ["none", "bounded", "signed"])
def test_attention_and_offsets_are_the_same_function(offset: str) -> None:
    found = transformer(4, 4, offset)
    assert wrong(found.network, found.view, images(8)) == []


@pytest.mark.parametrize("placement", ["deploy", "paper"])
def test_biases_that_training_rounded_are_compared_as_they_are_deployed(placement: str) -> None:
    quant = Quant.model_validate({**policy(4, 4).model_dump(), "placement": placement})
    found = lower(Tokens(), quant, images())
    network = fold_batch_norm(copy.deepcopy(found.network))
    view = deploy_view(network, Deploy())
    assert wrong(network, view, images()) == []
    layer = cast(IntegerConv2d, view.get_submodule("stem.0"))
    layer.bias[3] += 1
    assert "stem.0" in wrong(network, view, images())


def test_batches_do_not_change_the_network_or_the_view() -> None:
    found = small()
    before = copy.deepcopy(found.network.state_dict()), copy.deepcopy(found.view.state_dict())
    compare_function(found.network, found.view, [images()])
    for old, new in zip(before, (found.network.state_dict(), found.view.state_dict()), strict=True):
        assert all(torch.equal(old[name], new[name]) and old[name].dtype == new[name].dtype for name in old)


class Tokens(nn.Module):
    """A BatchNorm1d right behind a linear layer on tokens: it normalises tokens, as many as channels."""

    def __init__(self, channels: int = 16, normalised: int = 16) -> None:
        super().__init__()
        self.stem, self.down = conv_block(3, 8), conv_block(8, 12, stride=4)
        self.linear, self.norm = nn.Linear(12, channels), nn.BatchNorm1d(normalised)
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.down(self.stem(x)).flatten(2).transpose(1, 2))
        return cast(Tensor, self.fc(torch.relu(self.norm(x)).mean(1)))


class TokensOfChannels(Tokens):
    """The same behind a transposition: channels, of tensors (N, C, L)."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.down(self.stem(x)).flatten(2).transpose(1, 2)).transpose(1, 2)
        return cast(Tensor, self.fc(torch.relu(self.norm(x)).mean(2)))


class Flat(nn.Module):
    """Behind a linear layer on (N, C): axis 1 is the layer's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.linear = conv_block(3, 8, stride=4), nn.Linear(128, 16)
        self.norm, self.fc = nn.BatchNorm1d(16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc(torch.relu(self.norm(self.linear(self.stem(x).flatten(1))))))


@pytest.mark.parametrize(
    ("build", "folded"),
    [
        (Tokens, False),
        (lambda: Tokens(24, 16), False),
        (TokensOfChannels, False),
        (Flat, True),
    ],
    ids=["tokens", "tokens of more channels", "channels", "flat"],
)
def test_a_batch_norm_behind_a_linear_layer_is_folded_along_its_own_axis(
    build: Callable[[], nn.Module], folded: bool
) -> None:
    torch.manual_seed(0)
    found = lower(build(), policy(4, 4), images())
    assert wrong(found.network, found.view, images()) == []
    assert folded == (not any(isinstance(m, ChannelAffine) for m in found.view.modules()))
    network = fold_batch_norm(copy.deepcopy(found.network))
    assert folded == (not any(isinstance(m, nn.BatchNorm1d) for m in network.modules()))
    assert wrong(network, deploy_view(network, Deploy()), images()) == []


def _negate(view: fx.GraphModule) -> None:
    layer = cast(IntegerConv2d, view.get_submodule("stem.0"))
    layer.weight = layer.weight.clone()
    layer.weight[1] *= -1


def _bias(change: Callable[[Tensor], object]) -> Callable[[fx.GraphModule], None]:
    return lambda view: cast(None, change(cast(IntegerLinear, view.get_submodule("head.fc")).bias))


def _quantizer(**settings: object) -> Callable[[fx.GraphModule], None]:
    def change(view: fx.GraphModule) -> None:
        module = cast(Quantize, view.get_submodule("quantizers.branch_0_2"))
        for name, value in settings.items():
            setattr(module, name, value)

    return change


def _scale(factor: float) -> Callable[[fx.GraphModule], None]:
    return lambda view: cast(
        None, cast(Quantize, view.get_submodule("quantizers.branch_0_2")).scale.mul_(factor)
    )


def _layer(name: str, **settings: object) -> Callable[[fx.GraphModule], None]:
    def change(view: fx.GraphModule) -> None:
        module = view.get_submodule(name)
        for key, value in settings.items():
            setattr(module, key, value)

    return change


MUTANTS: dict[str, tuple[Callable[[fx.GraphModule], None], str]] = {
    "codes of one channel negated": (_negate, "stem.0"),
    "a bias off by one unit": (_bias(lambda bias: bias[3].add_(1)), "head.fc.bias"),
    "biases zeroed": (_bias(lambda bias: bias.zero_()), "head.fc.bias"),
    "a bound one lower": (_quantizer(maximum=14), "branch_0_2.codes"),
    "a bound one higher": (_quantizer(maximum=16), "branch_0_2.codes"),
    "negative codes cut": (_quantizer(minimum=1), "branch_0_2.codes"),
    "a scale a millionth larger": (_scale(1.000001), "branch_0_2.codes"),
    "another stride": (_layer("depthwise.0", stride=(1, 1)), "depthwise.0"),
    "another padding": (_layer("branch.1", padding=(0, 0)), "branch.1"),
    "a dilation": (_layer("branch.1", dilation=(2, 2), padding=(2, 2)), "branch.1"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_what_lowering_could_get_wrong_is_found_where_it_is(name: str) -> None:
    change, where = MUTANTS[name]
    found = small()
    view = copy.deepcopy(found.view)
    change(view)
    assert wrong(found.network, view, images())[0].startswith(where)


@pytest.mark.parametrize("offset", ["bounded", "signed"])
def test_a_wrong_offset_is_found(offset: str) -> None:
    found = transformer(4, 4, offset)
    view = copy.deepcopy(found.view)
    name, constant = next((n, b) for n, b in view.named_buffers() if n.endswith("_offset"))
    constant.mul_(1.00001)
    name = name.removeprefix("quantizers_").removesuffix("_offset")
    assert name in wrong(found.network, view, images(8))[0]


class _HalfUp(Quantizer):
    def forward(self, x: Tensor, added: Added | None = None, averaged: Averaged | None = None) -> Tensor:
        steps = torch.floor(x / self.scale + 0.5).clamp(self.grid.minimum, self.grid.maximum)
        return steps * self.scale


def test_half_up_rounding_in_training_is_found_at_every_quantizer() -> None:
    found = small()
    network = copy.deepcopy(found.network)
    for name, module in network.get_submodule("quantizers").named_children():
        assert isinstance(module, Quantizer)
        other = _HalfUp(module.grid, bits=module.bits)
        other.load_state_dict(module.state_dict())
        network.get_submodule("quantizers").add_module(name, other)
    assert "image.codes" in wrong(network, found.view, images())


def test_a_quantizer_that_the_view_lost_is_named() -> None:
    found = small()
    view = copy.deepcopy(found.view)
    node = next(node for node in view.graph.nodes if node.target == "quantizers.branch_0_2")
    node.target = "quantizers.renamed"
    view.add_submodule("quantizers.renamed", view.get_submodule("quantizers.branch_0_2"))
    view.recompile()
    assert any("branch_0_2.codes (not in the deploy view)" in n for n in wrong(found.network, view, images()))


def test_the_comparison_names_the_layer() -> None:
    found: Lowered = small()
    view = copy.deepcopy(found.view)
    _negate(view)
    comparison = function_comparison(found.network, view, [images()])
    assert not comparison.passed and comparison.hard
    assert comparison.detail.startswith("first at stem.0: ")
