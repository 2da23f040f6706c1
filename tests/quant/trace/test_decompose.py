"""Attention in one call and Einstein's sums become plain products, with the same results."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.quant.trace import graph
from saq_qat.quant.trace.decompose import masked_scores
from saq_qat.quant.trace.tracer import trace


class Attention(nn.Module):
    """Three tensors out of one, and attention with these arguments."""

    mask: Tensor | None

    def __init__(self, mask: Tensor | None = None, rate: float = 0.0, **arguments: Any) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.rate, self.arguments = rate, arguments

    def forward(self, x: Tensor) -> Tensor:
        rate = self.rate if self.training else 0.0
        return F.scaled_dot_product_attention(
            x, x * 2, x + 1, attn_mask=self.mask, dropout_p=rate, **self.arguments
        )


class Einstein(nn.Module):
    def __init__(self, equation: str, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.equation, self.axes = equation, axes

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum(self.equation, x, (x + 1).permute(self.axes))


def tokens() -> Tensor:
    return torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


def products(network: fx.GraphModule) -> int:
    return sum(graph.is_product(network, node) for node in network.graph.nodes)


MASKS = {
    "none": None,
    "numbers": torch.linspace(-2, 2, 25).reshape(5, 5),
    "truth": torch.ones(5, 5).tril().bool(),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_in_one_call_becomes_two_products(mask: Tensor | None, scale: float | None) -> None:
    model = Attention(mask, scale=scale).eval()
    network = trace(model).eval()
    assert products(network) == 2
    torch.testing.assert_close(network(tokens()), model(tokens()))
    assert graph.is_nonnegative(network, next(n for n in network.graph.nodes if n.target is F.softmax))


def test_weights_of_attention_drop_in_training_only() -> None:
    model = Attention(rate=0.5)
    network = trace(model)
    assert isinstance(network.get_submodule("scaled_dot_product_attention_dropout"), nn.Dropout)
    torch.testing.assert_close(network.eval()(tokens()), model.eval()(tokens()))
    assert not torch.equal(network.train()(tokens()), network(tokens()))


def test_causal_attention_stays_one_call() -> None:
    model = Attention(is_causal=True)
    network = trace(model)
    assert products(network) == 0
    torch.testing.assert_close(network(tokens()), model(tokens()))


def test_a_mask_of_numbers_is_added_and_one_of_truth_hides() -> None:
    scores = torch.zeros(1, 2)
    assert masked_scores(scores, torch.tensor([[1.0, -1.0]])).tolist() == [[1, -1]]
    assert masked_scores(scores, torch.tensor([[True, False]])).tolist() == [[0, float("-inf")]]


@pytest.mark.parametrize(
    ("equation", "axes"),
    [
        ("bhid,bhjd->bhij", (0, 1, 2, 3)),
        ("bhij, bhjd -> bhid", (0, 1, 3, 2)),
        ("bihd,bjhd->bhij", (0, 1, 2, 3)),
        ("bhid,bhjd->bihj", (0, 1, 2, 3)),
        ("nhqc,nhkc->nqkh", (0, 1, 2, 3)),
    ],
)
def test_einsteins_products_become_products(equation: str, axes: tuple[int, ...]) -> None:
    model = Einstein(equation, axes)
    network = trace(model)
    assert products(network) == 1
    assert not any(node.target is torch.einsum for node in network.graph.nodes)
    torch.testing.assert_close(network(tokens()), model(tokens()))


@pytest.mark.parametrize(
    "equation",
    ["bhid,bhid->bhi", "bhid,bhid->bhid", "...id,...jd->...ij", "bhid,ehid->be", "bhid,ehjd->bhiej"],
)
def test_other_sums_stay_as_they_are(equation: str) -> None:
    model = Einstein(equation, (0, 1, 2, 3))
    network = trace(model)
    assert products(network) == 0
    torch.testing.assert_close(network(tokens()), model(tokens()))
