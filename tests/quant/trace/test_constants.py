"""Tensors that forward makes of numbers alone are buffers of the traced network."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saq_qat.quant.deploy.computed import computed_values
from saq_qat.quant.trace.tracer import trace

IMAGE = (3, 6, 8)


class Forward(nn.Module):
    def __init__(self, body: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.table = nn.Parameter(torch.rand(3, 1, 1))
        self.register_buffer("noise", torch.rand(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def grid(_: nn.Module, x: Tensor) -> Tensor:
    return x * torch.arange(x.shape[3], device=x.device, dtype=x.dtype).div(8).sin()


def of_double(_: nn.Module, x: Tensor) -> Tensor:
    return x + torch.linspace(0, 1, x.shape[2], dtype=torch.float64).cos().to(x.dtype)[:, None]


@pytest.mark.parametrize("body", [grid, of_double])
def test_constants_are_computed_once(body: Callable[[Any, Tensor], Tensor]) -> None:
    model = Forward(body)
    network = trace(model, IMAGE)
    images = torch.randn(2, *IMAGE)
    assert torch.equal(network(images), model(images))
    assert [node.op for node in network.graph.nodes] == ["placeholder", "get_attr", "call_function", "output"]


def test_what_a_parameter_goes_into_is_no_constant() -> None:
    def body(own: Any, x: Tensor) -> Tensor:
        result: Tensor = x * own.table.exp() + own.noise.exp() + torch.ones(x.shape[1], 1, 1)
        return result

    network = trace(Forward(body), IMAGE)
    found = computed_values(network)
    assert list(found) == ["exp"]
    assert torch.equal(found["exp"], network.get_parameter("table").exp())


def test_values_of_parameters_alone_are_those_of_evaluation() -> None:
    """A network in training is left as it is."""

    def body(own: Any, x: Tensor) -> Tensor:
        return x + nn.functional.dropout(own.table.exp(), 0.5, own.training)

    network = trace(Forward(body).train(), IMAGE).train()
    (value,) = computed_values(network).values()
    assert torch.equal(value, network.get_parameter("table").exp())
    assert all(module.training for module in network.modules())


def test_a_network_that_computes_with_images_alone_has_none() -> None:
    assert computed_values(trace(nn.Sequential(nn.Conv2d(3, 4, 3)), IMAGE)) == {}
