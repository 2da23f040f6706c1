"""Assignments to a part of a tensor: the trace computes what Python does, or refuses."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from saq_qat.errors import LegalityError
from saq_qat.quant.trace.tracer import trace

IMAGE = (3, 8, 6)


class Assigns(nn.Module):
    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.body = nn.Conv2d(3, 4, 3, padding=1), body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.conv(x) * 1.5)


def to_slices(x: Tensor) -> Tensor:
    x[:, 1:3] = x[:, :2] * 2
    return x


def to_two_axes(x: Tensor) -> Tensor:
    x[..., 1:4, 2:] += 1
    return x


def to_everything(x: Tensor) -> Tensor:
    x[:] = x * 2
    return x


def numbers(x: Tensor) -> Tensor:
    x[:, 0] = 5
    x[:, -1, :, 2] = -0.5
    return x


def in_place(x: Tensor) -> Tensor:
    x[:, 1:3].zero_()
    x[:, 0, 2:].fill_(-2).mul(3)
    return x


def to_parts_of_parts(x: Tensor) -> Tensor:
    x[:, 1:][:, 0] = 5
    x[:, 2:][..., 1:][:, :1, 2].fill_(3)
    return x * 2


def broadcast(x: Tensor) -> Tensor:
    x[:, :, 2] = x[:, :, 0]
    x[:, -1] = x.mean()
    x[:, 2, 3:] = x[:, 0, 0].unsqueeze(1)
    return x


def a_mask(x: Tensor) -> Tensor:
    x[x > 0] = 1
    return x


def one_image(x: Tensor) -> Tensor:
    x[0] = 1
    return x


def steps(x: Tensor) -> Tensor:
    x[:, ::2] = 1
    return x


def to_copies(x: Tensor) -> Tensor:
    y = x[:, [0, 2]]
    y[:, 0] = 7
    first, second = x.chunk(2, 1)
    second[:, 0] = 1
    return torch.cat([y, first.sin(), second], 1)


def of_another_view(x: Tensor) -> Tensor:
    x.transpose(1, 2)[:, 1] = 0
    return x * 2


def then_reads_a_view(x: Tensor) -> Tensor:
    view = x[:, 0]
    x[:, 0] = 1
    return x + view.unsqueeze(1)


@pytest.mark.parametrize(
    "body",
    [to_slices, to_two_axes, to_everything, numbers, broadcast, in_place, to_parts_of_parts, to_copies],
)
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # of Python's own assignment
def test_an_assignment_is_traced(body: Callable[[Tensor], Tensor]) -> None:
    model = Assigns(body).eval()
    network = trace(model, IMAGE)
    for batch in (1, 3):
        images = torch.randn(batch, *IMAGE)
        with torch.no_grad():
            assert torch.equal(network(images), model(images))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (a_mask, "numbers and slices alone"),
        (one_image, "depends on the batch"),
        (steps, "have no steps"),
        (of_another_view, "A part of transpose is assigned to, and mul_1 reads mul, which shares"),
        (then_reads_a_view, "reads getitem, which shares its memory, afterwards"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(body: Callable[[Tensor], Tensor], told: str) -> None:
    with pytest.raises(LegalityError, match=told):
        trace(Assigns(body), IMAGE)
