"""Sizes while tracing: numbers, but for the batch's; forward may branch on them."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from saq_qat.errors import LegalityError
from saq_qat.quant.trace.sizes import Sizes
from saq_qat.quant.trace.tracer import trace

IMAGE = (3, 8, 12)


class Forward(nn.Module):
    """Whatever a test does with an image, behind a convolution."""

    body: Callable[..., Tensor]

    def __init__(self, body: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.table = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, self.conv(x))


def traced(body: Callable[..., Tensor], image: tuple[int, int, int] = IMAGE) -> fx.GraphModule:
    """The network's trace, which computes what the network does, for every batch."""
    model = Forward(body)
    network = trace(model, image)
    for batch in (1, 2, 5):
        images = torch.randn(batch, *image)
        torch.testing.assert_close(network(images), model(images))
    return network


def branches_on_sizes(_: nn.Module, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    if (
        batch >= 1
        and batch != 0
        and height == 8
        and width != 8
        and channels == x.size(1)
        and x.ndim == 4
        and len(x.shape) == x.dim()
    ):
        x = x * math.ceil(width / 5)
    if x.dtype != torch.float32 or x[0].numel() != 4 * 8 * 12:
        raise ValueError("not taken")
    return x.reshape(x.shape[0], -1)


def same_padding(_: nn.Module, x: Tensor) -> Tensor:
    left = max((math.ceil(x.shape[-1] / 5) - 1) * 5 + 7 - x.shape[-1], 0)
    return nn.functional.pad(x, (left, left)) if left else x


def loops_over_parts(_: nn.Module, x: Tensor) -> Tensor:
    total: Any = x[:, :1]
    for part in x.chunk(x.shape[1] // 2, 1):
        total = total + part[:, :1]
    for index in range(x.shape[2] // 4):
        total = total + x[:, :1] * index
    parts: Any = torch.split(x, 1, 1)
    result: Tensor = total + sum(list(parts))
    return result


def compares_shapes(network: nn.Module, x: Tensor) -> Tensor:
    y = torch.relu(x)
    assert x.shape == y.shape and x.shape[1:] == y.shape[1:]
    return x + y if x.shape[0] == y.shape[0] else y


def windows(_: nn.Module, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    parts = x.view(batch, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 1, 3, 5)
    parts = parts.reshape(-1, channels, 4, 4)
    assert parts.shape[0] == batch * 6
    return parts.reshape(batch, -1)


@pytest.mark.parametrize(
    "body", [branches_on_sizes, same_padding, loops_over_parts, compares_shapes, windows]
)
def test_forward_may_do_with_sizes_what_it_likes(body: Callable[..., Tensor]) -> None:
    network = traced(body)
    assert not any(node.op == "call_function" and node.target is math.ceil for node in network.graph.nodes)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (lambda _, x: x if x.shape[0] > 4 else x * 2, "x.shape"),
        (lambda _, x: x if x.shape[0] == 1 else x * 2, "x.shape"),
        (lambda _, x: x if x.shape[0] * 2 == 16 else x * 2, "x.shape"),
        (lambda _, x: x if x.sum() > 0 else x * 2, "x.sum"),
        (lambda _, x: torch.stack(list(x)), "list"),
    ],
)
def test_what_depends_on_the_batch_or_on_values_is_refused_with_its_line(
    body: Callable[..., Tensor], line: str
) -> None:
    with pytest.raises(LegalityError, match=r"cannot be traced \(.*test_sizes\.py, line \d+: .*"):
        trace(Forward(body), IMAGE)
    assert line


def test_without_an_image_no_size_is_known() -> None:
    with pytest.raises(LegalityError, match="symbolically traced variables"):
        trace(Forward(branches_on_sizes))


def test_a_constant_may_be_spread_over_the_batch() -> None:
    def spread(_: nn.Module, x: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, x.shape[2])[None, None, :, None]
        return torch.cat([x, rows.expand(x.shape[0], 1, x.shape[2], x.shape[3])], 1)

    traced(spread)


def test_tracing_leaves_running_statistics_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, IMAGE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_sizes_multiply_like_a_shape() -> None:
    sizes: Any = Sizes((2, 3, 4))
    assert (sizes.numel(), sizes[1:], len(sizes)) == (24, (3, 4), 3)


@pytest.mark.parametrize("maker", [torch.zeros, torch.ones, torch.rand, torch.randn, torch.empty])
def test_tensors_may_be_made_for_a_batch(maker: Callable[..., Tensor]) -> None:
    def forward(_: nn.Module, x: Tensor) -> Tensor:
        made = getattr(torch, maker.__name__)(x.shape[0], 1, 1, 1, device=x.device)
        return x + torch.zeros_like(made)

    traced(forward)
    assert getattr(torch, maker.__name__) is maker


def test_the_device_of_an_image_may_be_asked_for() -> None:
    kept: dict[str, Tensor] = {}

    def forward(model: Any, x: Tensor) -> Tensor:
        key = str(x.device)
        if key not in kept or model.training:
            kept[key] = model.table * 2
        with torch.autocast(device_type=x.device.type, enabled=False):
            return x.to(x.device) + kept[key] if x.device.type != "cuda" and x.device.index is None else x

    model = Forward(forward).eval()
    network = trace(model, IMAGE)
    kept.clear()
    images = torch.randn(2, *IMAGE)
    torch.testing.assert_close(network(images), model(images))


def test_what_forward_keeps_for_the_next_call_is_forgotten_after_a_trace() -> None:
    class Keeps(Forward):
        def __init__(self) -> None:
            super().__init__(lambda m, x: m.biased(x))
            self.kept: dict[str, Tensor] = {}
            self.last: Tensor | None = None

        def biased(self, x: Tensor) -> Tensor:
            if "bias" not in self.kept:
                self.kept["bias"] = self.table + 1
            self.last = x + self.kept["bias"]
            return self.last

    model = Keeps()
    network = trace(model, IMAGE)
    assert model.kept == {} and model.last is None
    assert not any(name.startswith("_tensor_constant") for name in vars(model))
    images = torch.randn(2, *IMAGE)
    torch.testing.assert_close(network(images), model(images))
