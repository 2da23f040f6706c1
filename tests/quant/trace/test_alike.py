"""What is the same for every image of a batch is computed once."""

import pytest
import torch
from torch import Tensor, nn

from saq_qat.quant.trace.graph import is_weighted
from saq_qat.quant.trace.tracer import trace

IMAGE = (3, 8, 6)


class Positions(nn.Module):
    """Coordinates for a whole batch, through a layer that learns, added, joined and multiplied."""

    def __init__(self, *, joins: bool) -> None:
        super().__init__()
        self.conv, self.project, self.joins = nn.Conv2d(3, 4, 1), nn.Conv2d(2, 4, 1), joins

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        ones = torch.ones(batch, height, width, device=x.device)
        places = torch.stack([ones.cumsum(1), ones.cumsum(2)], 1) / height
        y, positions = self.conv(x), self.project(places)
        joined: Tensor = torch.cat([y, positions], 1) if self.joins else y + positions
        return joined


class Tokens(nn.Module):
    """A parameter spread over the batch, which computes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.token = nn.Conv2d(3, 4, 1), nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1)


def test_a_layer_on_positions_reads_no_image() -> None:
    for joins in (False, True):
        model = Positions(joins=joins)
        network = trace(model, IMAGE)
        weighted = [str(node.target) for node in network.graph.nodes if is_weighted(network, node)]
        assert weighted == ["conv"]
        for batch in (1, 2, 5):
            images = torch.randn(batch, *IMAGE)
            torch.testing.assert_close(network(images), model(images))


def test_positions_still_learn() -> None:
    model = Positions(joins=False)
    trace(model, IMAGE)(torch.randn(2, *IMAGE)).sum().backward()
    assert model.project.weight.grad is not None


def test_a_parameter_that_is_only_spread_stays_as_it_is() -> None:
    network = trace(Tokens(), IMAGE)
    (spread,) = [node for node in network.graph.nodes if node.target == "expand"]
    assert spread.args[0].op == "get_attr"
    assert network(torch.randn(3, *IMAGE)).shape == (3, 49, 4)


class Numbered(nn.Module):
    """Each image gets numbers of its own, though none of them looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, _, width = x.shape
        numbers = torch.arange(batch * width, device=x.device).reshape(batch, 1, 1, width) * 0.5
        result: Tensor = self.conv(x) + numbers
        return result


class OfAShape(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x) + torch.ones(x.shape, device=x.device).cumsum(-1)
        return result


@pytest.mark.parametrize("model", [Numbered(), OfAShape()])
def test_what_differs_between_images_stays(model: nn.Module) -> None:
    network = trace(model, IMAGE)
    for batch in (1, 2, 5):
        images = torch.randn(batch, *IMAGE)
        torch.testing.assert_close(network(images), model(images))


def test_terms_that_cancel_are_no_difference() -> None:
    """Kernels sum in another order for another batch, which a restored network must not turn on."""
    for seed in range(20):
        torch.manual_seed(seed)
        model = Positions(joins=False)
        model.project = nn.Conv2d(2, 16, 1)
        model.conv = nn.Conv2d(3, 16, 1)
        network = trace(model, (3, 16, 16))
        weighted = [str(node.target) for node in network.graph.nodes if is_weighted(network, node)]
        assert weighted == ["conv"], seed
