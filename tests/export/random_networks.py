"""Random small networks of the parts that people write: convolutions, tokens, attention, gates, stacks."""

import random
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["RandomNetwork"]

WIDTH = 16
_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh, lambda: nn.LeakyReLU(0.1),
    lambda: nn.Hardtanh(-1, 1), nn.Identity,
)  # fmt: skip  # one value a line is a page


class _Conv(nn.Module):
    """Convolution, BatchNorm and activation in a random order, with a random window."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        groups = draw.choice((1, 1, 2, WIDTH))
        size, dilation = draw.choice(((1, 1), (3, 1), (3, 2), (5, 1)))
        padding = dilation * (size // 2)
        conv = nn.Conv2d(
            WIDTH, WIDTH, size, 1, padding, dilation, groups, bias=draw.random() < 0.5,
            padding_mode=draw.choice(("zeros", "zeros", "zeros", "reflect")),
        )  # fmt: skip  # one value a line is a page
        parts = [conv, nn.BatchNorm2d(WIDTH), draw.choice(_ACTIVATIONS)()]
        if draw.random() < 0.2:
            parts.reverse()
        self.parts = nn.Sequential(*parts[: draw.choice((1, 3, 3, 3))])

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.parts(x)
        return result


class _Residual(nn.Module):
    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.one, self.other = _Conv(draw), _Conv(draw) if draw.random() < 0.5 else nn.Identity()
        self.kind = draw.choice(("sum", "sum", "product", "join", "scaled"))
        self.mix = nn.Conv2d(2 * WIDTH, WIDTH, 1) if self.kind == "join" else nn.Identity()
        self.scale = nn.Parameter(torch.rand(WIDTH, 1, 1))
        self.after = draw.choice(_ACTIVATIONS)()

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.one(x), self.other(x)
        if self.kind == "join":
            result: Tensor = self.mix(torch.cat([one, other], 1))
        elif self.kind == "product":
            result = one * torch.sigmoid(other)
        else:
            result = one * self.scale + other if self.kind == "scaled" else one + other
        after: Tensor = self.after(result)
        return after


class _Gate(nn.Module):
    """Squeeze-and-excitation, with linear layers or convolutions."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.linear = draw.random() < 0.5
        kind: Callable[[int, int], nn.Module] = nn.Linear if self.linear else lambda a, b: nn.Conv2d(a, b, 1)
        self.down, self.up = kind(WIDTH, 8), kind(8, WIDTH)
        self.inner = draw.choice(_ACTIVATIONS)()
        self.gate = draw.choice((nn.Sigmoid, nn.Hardsigmoid))()

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3)) if self.linear else F.adaptive_avg_pool2d(x, 1)
        gate: Tensor = self.gate(self.up(self.inner(self.down(pooled))))
        return x * (gate[:, :, None, None].expand_as(x) if self.linear else gate)


class _Pool(nn.Module):
    """To half the size, padded first where that is odd."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.pool = draw.choice((nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Conv2d(WIDTH, WIDTH, 3, 2, 1)))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] < 4:
            return x
        result: Tensor = self.pool(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)))
        return result


class _Tokens(nn.Module):
    """Attention and a stack of linear layers over the positions of an image."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.norm = draw.choice((nn.LayerNorm(WIDTH), nn.Identity()))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.softmax = draw.random() < 0.8
        hidden = draw.choice((16, 24))
        norm = draw.choice((nn.Identity(), nn.LayerNorm(hidden)))
        self.stack = nn.Sequential(
            nn.Linear(WIDTH, hidden), draw.choice(_ACTIVATIONS)(), norm, nn.Linear(hidden, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).reshape(batch, height * width, 3, 2, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * 0.35
        mixed = (scores.softmax(-1) if self.softmax else scores / (height * width)) @ v
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(batch, height * width, channels))
        tokens = tokens + self.stack(tokens)
        result: Tensor = tokens.transpose(1, 2).reshape(batch, channels, height, width)
        return result


class _Shared(nn.Module):
    """One convolution on two inputs, with one BatchNorm or two, or one after the other."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, draw.choice((1, 3)), padding="same", bias=draw.random() < 0.5)
        first, second = nn.BatchNorm2d(WIDTH), nn.BatchNorm2d(WIDTH)
        self.norms = nn.ModuleList([first, draw.choice((first, second))])
        self.after = draw.choice(_ACTIVATIONS)()
        self.in_sequence = draw.random() < 0.4

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.norms
        one: Tensor = self.after(first(self.conv(x)))
        if self.in_sequence:
            return x + cast(Tensor, self.after(second(self.conv(one))))
        coarse = F.interpolate(F.avg_pool2d(x, 2, ceil_mode=True), size=x.shape[-2:])
        return one + cast(Tensor, self.after(second(self.conv(coarse))))


class _Positions(nn.Module):
    """Coordinates made for the whole batch, projected and added; a part of the result is assigned to."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.project = nn.Conv2d(2, WIDTH, 1)
        self.assigns = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        ones = torch.ones(batch, height, width, device=x.device)
        x = x + self.project(torch.stack([ones.cumsum(1), ones.cumsum(2)], 1) / height)
        if self.assigns:
            x[:, :2] = x[:, 2:4] * 0.5
        return x


class _Head(nn.Module):
    def __init__(self, draw: random.Random, num_classes: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(draw.choice((0, 1, 2))):
            parts += [nn.Linear(WIDTH, WIDTH), draw.choice(_ACTIVATIONS)()]
            parts += [nn.BatchNorm1d(WIDTH)] if draw.random() < 0.4 else []
        self.parts = nn.Sequential(*parts, nn.Linear(WIDTH, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.parts(x.mean((2, 3)))
        return result


class RandomNetwork(nn.Module):
    """A stem, two to four random parts and a head; a function of ``seed``."""

    def __init__(self, num_classes: int, seed: int) -> None:
        super().__init__()
        draw, state = random.Random(seed), torch.get_rng_state()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTH, 3, 2, 1), nn.BatchNorm2d(WIDTH), nn.ReLU())
        kinds = (_Conv, _Residual, _Gate, _Pool, _Tokens, _Shared, _Positions)
        self.body = nn.ModuleList(draw.choice(kinds)(draw) for _ in range(draw.choice((2, 3, 4))))
        self.head = _Head(draw, num_classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
        torch.set_rng_state(state)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for part in self.body:
            x = part(x)
        result: Tensor = self.head(x)
        return result
