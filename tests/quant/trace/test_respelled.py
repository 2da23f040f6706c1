"""Functions are spelled by others that give the same numbers, for every batch."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.quant.trace.tracer import trace

IMAGE = (3, 6, 8)


class Calls(nn.Module):
    def __init__(self, body: Callable[["Calls", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.body = nn.Conv2d(3, 4, 3, padding=1), body
        self.query, self.turn = nn.Parameter(torch.randn(1, 1, 4)), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, self.conv(x))


def stacks(_: Calls, x: Tensor) -> Tensor:
    y = torch.dstack([torch.hstack([x, x * 2]), torch.hstack((x, x))])
    halves = torch.hstack(x.chunk(2, 2))
    return torch.hstack([y.flatten(1), halves.flatten(1), x.mean((2, 3))])


def repeats(self: Calls, x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2) * self.query.repeat(x.size(0), 1, 1)


def turns(self: Calls, x: Tensor) -> Tensor:
    theta = self.turn(x.mean((2, 3))).view(-1, 2, 3)
    return F.affine_grid(theta, list(x.size()), align_corners=False)


def turns_by_corners(self: Calls, x: Tensor) -> Tensor:
    return F.affine_grid(self.turn(x.mean((2, 3))).view(-1, 2, 3), [*x.size()], align_corners=True)


@pytest.mark.parametrize(
    ("body", "gone"),
    [(stacks, "stack"), (repeats, "repeat"), (turns, "affine_grid"), (turns_by_corners, "affine_grid")],
)
@torch.no_grad()
def test_the_numbers_stay(body: Callable[[Calls, Tensor], Tensor], gone: str) -> None:
    model = Calls(body).eval()
    network = trace(model, IMAGE)
    names = [str(getattr(node.target, "__name__", node.target)) for node in network.graph.nodes]
    assert not any(name.endswith(gone) for name in names)
    for batch in (1, 3):
        images = torch.randn(batch, *IMAGE)
        torch.testing.assert_close(network(images), model(images), rtol=1e-5, atol=1e-6)


def rows_of_vectors(_: Calls, x: Tensor) -> Tensor:
    return torch.hstack([x.mean((1, 2, 3)), x.amax((1, 2, 3))])


def other_repeats(self: Calls, x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2) * self.query.repeat(x.size(0), 1, 1).repeat(1, 1, 1)


@pytest.mark.parametrize("body", [rows_of_vectors, other_repeats])
@torch.no_grad()
def test_others_compute_as_before(body: Callable[[Calls, Tensor], Tensor]) -> None:
    model = Calls(body).eval()
    images = torch.randn(2, *IMAGE)
    assert torch.equal(trace(model, IMAGE)(images), model(images))
