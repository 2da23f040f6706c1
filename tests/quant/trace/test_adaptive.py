"""Adaptive maxima are those of torch, without the operation that exporters do not know."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saq_qat.quant.trace.graph import module_of
from saq_qat.quant.trace.tracer import trace

SIDE = st.integers(1, 11)
SIZE = st.one_of(st.none(), st.integers(1, 7))


class Calls(nn.Module):
    """Adaptive maxima of any settings; a second one asks for indices too."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__()
        self.given, self.named = given, named

    def forward(self, x: Tensor) -> Tensor:
        found: Any = F.adaptive_max_pool2d(x, *self.given, **self.named)
        result: Tensor = found[0] if len(self.given) > 1 else found
        return result


def calls(network: torch.fx.GraphModule) -> set[str]:
    modules = (module_of(network, node) for node in network.graph.nodes)
    return {
        getattr(node.target, "__name__", "") if module is None else type(module).__name__
        for node, module in zip(network.graph.nodes, modules, strict=True)
    }


@settings(max_examples=60, deadline=None)
@given(side=st.tuples(SIDE, SIDE), size=st.tuples(SIZE, SIZE), as_layer=st.booleans())
def test_maxima_are_those_of_torch(
    side: tuple[int, int], size: tuple[int | None, int | None], as_layer: bool
) -> None:
    model: nn.Module = nn.Sequential(nn.AdaptiveMaxPool2d(size)) if as_layer else Calls(size)
    x = torch.randn(2, 3, *side, generator=torch.Generator().manual_seed(0))
    network = trace(model, (3, *side))
    assert not {"adaptive_max_pool2d", "AdaptiveMaxPool2d"} & calls(network)
    assert torch.equal(network(x), model(x))


def test_one_number_is_both_sizes() -> None:
    x = torch.randn(2, 3, 6, 9)
    network = trace(nn.Sequential(nn.AdaptiveMaxPool2d(3)), (3, 6, 9))
    assert torch.equal(network(x), F.adaptive_max_pool2d(x, 3))


@pytest.mark.parametrize("given", [(2, True), (2,)])
def test_indices_and_unknown_sizes_are_left_to_torch(given: tuple[Any, ...]) -> None:
    image = (3, 6, 6) if len(given) > 1 else None
    x = torch.randn(2, 3, 6, 6)
    model = Calls(*given)
    network = trace(model, image)
    assert any("adaptive_max_pool2d" in name for name in calls(network))
    assert torch.equal(network(x), model(x))
