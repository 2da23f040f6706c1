"""torch's multi-head attention and encoders with their parts apart: the same results, all layers found."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saq_qat.errors import LegalityError
from saq_qat.models import separate_attention
from saq_qat.models.attention import separate_weights
from saq_qat.models.multihead import Encoder, EncoderLayer, MultiheadAttention
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.tracer import trace


class SelfAttending(nn.Module):
    def __init__(self, **features: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attn = nn.MultiheadAttention(12, 3, **features)
        for parameter in self.attn.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x)[0]  # type: ignore[no-any-return]


class CrossAttending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(12, 3, kdim=6, vdim=8, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.attn(x[:, :2], x[..., :6], x[..., :8])  # type: ignore[no-any-return]


def tokens() -> Tensor:
    return torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(1))


FEATURES: list[dict[str, Any]] = [{}, {"batch_first": True}, {"bias": False, "batch_first": True}]


@pytest.mark.parametrize("features", FEATURES)
def test_results_and_gradients_are_torchs(features: dict[str, Any]) -> None:
    network = SelfAttending(**features)
    separate = separate_attention(copy.deepcopy(network))
    assert isinstance(separate.get_submodule("attn"), MultiheadAttention)
    torch.testing.assert_close(separate(tokens()), network(tokens()), rtol=1e-5, atol=1e-5)
    for module in (network, separate):
        module(tokens()).square().sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in separate.named_parameters() if p.grad is not None}
    expected = separate_weights(gradients, found)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-3, msg=name)


def test_keys_of_another_width_and_the_weights_of_attention_are_torchs() -> None:
    network = CrossAttending()
    separate = separate_attention(copy.deepcopy(network))
    torch.testing.assert_close(separate(tokens()), network(tokens()), rtol=1e-5, atol=1e-5)
    fresh = separate_attention(CrossAttending())
    fresh.load_state_dict(separate_weights(network.state_dict(), fresh.state_dict().keys()))
    torch.testing.assert_close(fresh(tokens()), network(tokens()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("features", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_added_keys_have_no_layer_and_stay(features: dict[str, Any]) -> None:
    network = SelfAttending(**features)
    attention = network.attn
    assert separate_attention(network).get_submodule("attn") is attention


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("last_norm", [False, True])
def test_encoders_are_torchs(norm_first: bool, last_norm: bool) -> None:
    layer = nn.TransformerEncoderLayer(12, 3, 20, 0.3, "gelu", batch_first=True, norm_first=norm_first)
    norm = nn.LayerNorm(12) if last_norm else None
    network = nn.Sequential(nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False))
    separate = separate_attention(copy.deepcopy(network))
    assert isinstance(separate.get_submodule("0"), Encoder)
    assert isinstance(separate.get_submodule("0.layers.1"), EncoderLayer)
    expected = network.eval()(tokens())
    torch.testing.assert_close(separate.eval()(tokens()), expected, rtol=1e-5, atol=1e-5)
    names = separate_weights(network.state_dict(), separate.state_dict().keys())
    assert names.keys() == separate.state_dict().keys()
    traced = trace(separate)
    weighted = [node for node in traced.graph.nodes if graph.is_weighted(traced, node)]
    products = [node for node in traced.graph.nodes if graph.is_product(traced, node)]
    assert (len(weighted), len(products)) == (2 * 6, 2 * 2)
    torch.testing.assert_close(traced(tokens()), expected, rtol=1e-5, atol=1e-5)


def test_weights_of_attention_that_nobody_asks_for_are_no_part_of_the_graph() -> None:
    network = trace(separate_attention(SelfAttending(batch_first=True)))
    assert not any(node.target == "mean" for node in network.graph.nodes)


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


@pytest.mark.parametrize(
    ("module", "mask"),
    [
        (nn.MultiheadAttention(12, 3), "attn_mask"),
        (nn.TransformerEncoderLayer(12, 3, 20, batch_first=True), "src_mask"),
        (_encoder(), "mask"),
    ],
    ids=["attention", "layer", "encoder"],
)
def test_masks_are_refused(module: nn.Module, mask: str) -> None:
    separate = separate_attention(nn.Sequential(module)).get_submodule("0")
    inputs = (tokens(),) * (3 if isinstance(module, nn.MultiheadAttention) else 1)
    with pytest.raises(LegalityError, match="no mask"):
        separate(*inputs, **{mask: torch.zeros(5, 5)})
