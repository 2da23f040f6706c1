"""Separate attention: the same function as timm's fused one, and only where it is that function."""

import copy
import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.errors import LegalityError
from saq_qat.models import separate_attention
from saq_qat.models.attention import SelfAttention, separate_weights

timm_layers = pytest.importorskip("timm.layers", reason="needs the extra vit")

FEATURES: list[dict[str, Any]] = [
    {},
    {"num_heads": 3},
    {"qkv_bias": True, "qk_norm": True, "norm_layer": nn.LayerNorm},
    {"qkv_bias": True, "scale_norm": True, "norm_layer": nn.LayerNorm, "proj_bias": False},
    {"attn_head_dim": 10, "qkv_bias": True},
]


class Network(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attn = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x)  # type: ignore[no-any-return]  # modules return Any


def timm_network(fused_attn: bool = False, **features: Any) -> Network:
    torch.manual_seed(0)
    unknown = features.keys() - inspect.signature(timm_layers.Attention).parameters.keys()
    if unknown:
        pytest.skip(f"the installed timm has no attention with {', '.join(unknown)}")
    attention = timm_layers.Attention(24, **{"num_heads": 2, **features})
    attention.fused_attn = fused_attn
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return Network(attention)


def tokens(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 7, 24, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("fused_attn", [False, True])
def test_float32_outputs_are_timms(features: dict[str, Any], fused_attn: bool) -> None:
    network = timm_network(fused_attn, **features).eval()
    separate = separate_attention(copy.deepcopy(network))
    assert isinstance(separate.get_submodule("attn"), SelfAttention)
    torch.testing.assert_close(separate(tokens()), network(tokens()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("features", FEATURES)
def test_gradients_are_timms(features: dict[str, Any]) -> None:
    network = timm_network(**features).double()
    separate = separate_attention(copy.deepcopy(network))
    for module in (network, separate):
        module(tokens(torch.float64)).square().sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in separate.named_parameters() if p.grad is not None}
    expected = separate_weights(gradients, found)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-9, msg=name)


def test_dropouts_draw_as_timms_do() -> None:
    network = timm_network(attn_drop=0.3, proj_drop=0.2).double().train()
    separate = separate_attention(copy.deepcopy(network))
    outputs = []
    for module in (network, separate):
        torch.manual_seed(5)
        outputs.append(module(tokens(torch.float64)))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-12, atol=1e-12)
    assert not torch.equal(separate.eval()(tokens(torch.float64)), outputs[1])


def test_weights_keep_dtype_mode_and_gradient_switch() -> None:
    network = timm_network(qkv_bias=True).double().eval()
    network.get_parameter("attn.qkv.weight").requires_grad_(False)
    attention = separate_attention(network).get_submodule("attn")
    assert not any(module.training for module in attention.modules())
    assert {parameter.dtype for parameter in attention.parameters()} == {torch.float64}
    assert not attention.get_parameter("k.weight").requires_grad
    assert attention.get_parameter("k.bias").requires_grad


def test_the_random_generator_is_left_alone() -> None:
    network = timm_network()
    state = torch.get_rng_state()
    separate_attention(network)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_attention_used_twice_stays_one() -> None:
    attention = timm_network().attn
    network = separate_attention(nn.Sequential(attention, nn.Sequential(attention)))
    assert isinstance(network.get_submodule("0"), SelfAttention)
    assert network.get_submodule("0") is network.get_submodule("1.0")


def test_separating_again_changes_nothing() -> None:
    network = separate_attention(timm_network())
    attention = network.get_submodule("attn")
    assert separate_attention(network).get_submodule("attn") is attention


def test_masks_are_refused() -> None:
    network = separate_attention(timm_network())
    with pytest.raises(LegalityError, match="mask"):
        network.get_submodule("attn")(tokens(), attn_mask=torch.zeros(7, 7))


class Fused(nn.Module):
    """The parts of timm's attention, for the look-alikes below."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.scale = 2, 12**-0.5
        self.qkv, self.proj = nn.Linear(24, 72), nn.Linear(24, 24)
        self.attn_drop, self.proj_drop = nn.Dropout(0.0), nn.Dropout(0.0)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 2, 12).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        return self.merge(F.scaled_dot_product_attention(*self.branches(x)))

    def merge(self, x: Tensor) -> Tensor:
        return self.proj(x.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # modules return Any


class OverChannels(Fused):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (branch.transpose(-2, -1) for branch in self.branches(x))
        return self.merge(F.scaled_dot_product_attention(q, k, v).transpose(-2, -1))


class WithPositions(Fused):
    def __init__(self) -> None:
        super().__init__()
        self.position_bias = nn.Parameter(torch.zeros(7, 7))


class OfWindows(Fused):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 7, "windows have 7 tokens"
        return super().forward(x)


class WithRotation(Fused):
    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        return super().forward(x)


class WithSize(Fused):
    def forward(self, x: Tensor, size: tuple[int, int] = (1, 7)) -> Tensor:
        return super().forward(x)


class WithTwoInputs(Fused):
    def forward(self, x: Tensor, attn_mask: Tensor) -> Tensor:  # type: ignore[override]  # one input more, on purpose
        return super().forward(x)


def test_another_librarys_attention_is_separated_by_its_structure() -> None:
    network = Network(Fused())
    expected = network(tokens())
    assert isinstance(separate_attention(network).get_submodule("attn"), SelfAttention)
    torch.testing.assert_close(network(tokens()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kind", [OverChannels, WithPositions, OfWindows, WithRotation, WithSize, WithTwoInputs]
)
def test_what_computes_something_else_is_left_as_it_is(kind: type[nn.Module]) -> None:
    attention = kind()
    assert separate_attention(Network(attention)).get_submodule("attn") is attention


def test_zero_weights_do_not_hide_a_difference() -> None:
    attention = OverChannels()
    nn.init.zeros_(attention.proj.weight)
    assert separate_attention(Network(attention)).get_submodule("attn") is attention


def test_gated_attention_is_left_as_it_is() -> None:
    network = timm_network(gated=True)
    attention = network.attn
    assert separate_attention(network).get_submodule("attn") is attention


def test_fused_weights_are_split_only_where_they_are_wanted() -> None:
    weights = {"a.qkv.weight": torch.arange(6.0), "b.qkv.weight": torch.ones(6), "c.q.weight": torch.ones(1)}
    wanted = {"a.q.weight", "a.k.weight", "a.v.weight", "b.qkv.weight", "c.q.weight"}
    separate = separate_weights(weights, wanted)
    assert separate.keys() == wanted
    assert [separate[f"a.{branch}.weight"].tolist() for branch in "qkv"] == [[0, 1], [2, 3], [4, 5]]


def test_weights_that_are_no_three_branches_stay_under_their_name() -> None:
    weights = {"qkv.weight": torch.ones(4), "qkv.bias": torch.tensor(1.0)}
    wanted = {f"{branch}.{kind}" for branch in "qkv" for kind in ("weight", "bias")}
    assert separate_weights(weights, wanted).keys() == weights.keys()
