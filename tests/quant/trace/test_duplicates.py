"""One value computed twice is one node, unless something tells the two apart."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.quant.trace.tracer import trace


class Twice(nn.Module):
    def __init__(self, body: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.pool, self.again = nn.MaxPool2d(2), nn.MaxPool2d(2)
        self.other = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.norm = nn.BatchNorm2d(3)
        self.drop, self.redrop = nn.Dropout(0.5), nn.Dropout(0.5)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


SAME: dict[str, Callable[..., Tensor]] = {
    "layers": lambda m, x: m.pool(x) + m.again(x) * 2,
    "functions": lambda _, x: F.relu(x + 1).mean((2, 3)) + F.relu(x + 1).amax((2, 3)),
    "slices": lambda _, x: x[:, :2] * x[:, :2].sigmoid(),
}
DIFFERENT: dict[str, Callable[..., Tensor]] = {
    "settings": lambda m, x: m.pool(x) + m.other(x),
    "statistics": lambda m, x: m.norm(x) + m.norm(x) * 2,
    "dropouts": lambda m, x: m.drop(x) + m.redrop(x) * 2,
    "numbers of two kinds": lambda _, x: x * 1 + x * 1.0,
}


def operations(body: Callable[..., Tensor]) -> int:
    network = trace(Twice(body), (3, 8, 8))
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(network.eval()(images), body(Twice(body).eval(), images))
    return sum(node.op.startswith("call") for node in network.graph.nodes)


@pytest.mark.parametrize(("name", "count"), [("layers", 3), ("functions", 5), ("slices", 3)])
def test_what_is_repeated_is_computed_once(name: str, count: int) -> None:
    assert operations(SAME[name]) == count


@pytest.mark.parametrize(
    ("name", "count"), [("settings", 3), ("statistics", 4), ("dropouts", 4), ("numbers of two kinds", 3)]
)
def test_what_only_looks_alike_stays_apart(name: str, count: int) -> None:
    assert operations(DIFFERENT[name]) == count


def test_a_value_that_is_overwritten_is_not_shared() -> None:
    def body(_: nn.Module, x: Tensor) -> Tensor:
        first, second = x + 1, x + 1
        return first.mul_(2).sum((2, 3)) + second.sum((2, 3))

    network, images = trace(Twice(body), (3, 4, 4)), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(network(images), body(network, images))
