"""Networks as people write them, each with one thing that an export may stumble over."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.export.networks import disturb


class Base(nn.Module):
    """Two convolutions and a head, with ``between`` in between."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.conv = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.fc = nn.Linear(16, num_classes)
        disturb(self)

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc(self.conv(self.between(self.stem(x))).mean((2, 3)))
        return result


class BranchOnSizes(Base):
    def between(self, x: Tensor) -> Tensor:
        rows = x.shape[2] % 3
        return F.pad(x, (0, 0, 0, 3 - rows)) if rows and x.shape[1] == 16 else x


class Coordinates(Base):
    """Made in forward, on the image's device, spread over the batch."""

    def between(self, x: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, x.shape[2], device=x.device)[None, None, :, None]
        return x + rows.expand(x.shape[0], 16, x.shape[2], x.shape[3])


class RepeatedParts(Base):
    def between(self, x: Tensor) -> Tensor:
        first = x[:, :4].repeat(1, 2, 1, 1)
        return torch.cat([first, x[:, :4].expand_as(x[:, 4:8]), torch.zeros_like(x[:, :4])], 1)


class OfParametersAlone(Base):
    """A normalised weight, and a table that a small network computes from a buffer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.table = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 16))
        self.register_buffer("places", torch.randn(64, 2))

    def between(self, x: Tensor) -> Tensor:
        places: Tensor = self.get_buffer("places")
        table: Tensor = self.table(places).t().reshape(1, 16, 8, 8)
        return x + table

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.between(self.stem(x))).mean((2, 3))
        return F.linear(F.normalize(x), F.normalize(self.fc.weight)) * 8


class GroupedTranspose(Base):
    """An operation that no target runs on codes, behind a layer that writes codes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.up = nn.ConvTranspose2d(16, 16, 2, 2, groups=4)
        self.norm = nn.BatchNorm2d(16)

    def between(self, x: Tensor) -> Tensor:
        result: Tensor = torch.relu(self.norm(self.up(x)))
        return result


class TiedWeights(Base):
    """One Parameter of two layers, which a checkpoint has under both names."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.other = nn.Conv2d(16, 16, 3, 1, 2, 2, bias=False)
        first = self.conv[0]
        assert isinstance(first, nn.Conv2d)
        self.other.weight = first.weight

    def between(self, x: Tensor) -> Tensor:
        result: Tensor = torch.relu(self.other(x))
        return result


class ChannelsLast(Base):
    """Linear layers on (N, H, W, C), whose channels are on the last axis."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.norm, self.wide, self.narrow = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 16)

    def between(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.wide(self.norm(x.permute(0, 2, 3, 1))))
        result: Tensor = x + self.narrow(hidden).permute(0, 3, 1, 2)
        return result


class Averages(Base):
    """Averages of windows of unequal sizes, resized to what they were."""

    def between(self, x: Tensor) -> Tensor:
        return F.interpolate(F.adaptive_avg_pool2d(x, 3), size=x.shape[-2:], mode="bilinear")


class SharedLevels(Base):
    """One convolution on two inputs, each with a BatchNorm of its own, and one recurrently."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.shared = nn.Conv2d(16, 16, 3, 1, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(2))
        disturb(self)

    def between(self, x: Tensor) -> Tensor:
        first, second = self.norms
        x = torch.relu(first(self.shared(x))) + torch.relu(second(self.shared(x * 2 - 1)))
        result: Tensor = self.conv(x)
        return result


class PositionsOfABatch(Base):
    """A learned projection of coordinates that are made for the whole batch, and a part that is assigned."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.project = nn.Conv2d(2, 16, 1)

    def between(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        ones = torch.ones(batch, height, width, device=x.device)
        x = x + self.project(torch.stack([ones.cumsum(1), ones.cumsum(2)], 1) / height)
        x[:, :2, 1:] = x[:, 2:4, 1:] * 0.5
        return x


class TwoOfAKind(Base):
    """Two poolings of one tensor, and two BatchNorms with the same numbers on it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)
        self.na, self.nb = nn.BatchNorm1d(16), nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([F.max_pool2d(x, 2), F.max_pool2d(x, 2) * 0.5], 1)[:, ::2]
        x = self.conv(x).mean((2, 3))
        result: Tensor = self.fc(self.a(self.na(x)) + self.b(self.nb(x)))
        return result


class NothingToSee(Base):
    """Weights that are zero, constant and too small for normal numbers; activations that are constant."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.zero, self.constant, self.tiny = (nn.Conv2d(16, 16, 1) for _ in range(3))
        nn.init.zeros_(self.zero.weight)
        nn.init.constant_(self.constant.weight, 0.5)
        self.tiny.weight.data *= 1e-39
        nn.init.zeros_(self.fc.weight)

    def between(self, x: Tensor) -> Tensor:
        x = x + torch.relu(self.constant(torch.relu(self.zero(x) * 0 + 0.5)))
        return x + torch.relu(self.tiny(x))


class TooLarge(Base):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.fc.weight.data *= 1e38


class PadsByInfinity(Base):
    """As pooling with padding on one side is written; and the same where numbers may be negative."""

    def between(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2)


class PadsByInfinityBelowZero(Base):
    def between(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x - 0.5, (0, 1, 0, 1), value=-math.inf), 3, 2)


class PatchesOverlap(Base):
    def between(self, x: Tensor) -> Tensor:
        return F.fold(F.unfold(x, 3, padding=1, stride=2) / 9, x.shape[-2:], 3, padding=1, stride=2)


def half(num_classes: int) -> nn.Module:
    return Base(num_classes).half()


def compiled(num_classes: int) -> nn.Module:
    model = Base(num_classes)
    model.conv = torch.compile(model.conv)  # type: ignore[assignment]  # it is called like the module it wraps
    compiled_model: nn.Module = torch.compile(model)  # type: ignore[assignment]  # as above
    return compiled_model


class ReadsAView(Base):
    def between(self, x: Tensor) -> Tensor:
        view = x[:, :1]
        x[:, :1] = 0
        return x + view


class Maxima(Base):
    """Of windows that exporters do not know, of both terms of a Split, and of the channels of an image."""

    def between(self, x: Tensor) -> Tensor:
        kept, gated = torch.split(x, 8, 1)
        gate = torch.sigmoid(F.adaptive_max_pool2d(gated, 1))
        return F.adaptive_max_pool2d(torch.cat([kept, gated * gate], 1), (3, 5))


class MaskedAttention(Base):
    """A learned query for every image, a mask of -inf, and heads joined by ``hstack``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.query = nn.Parameter(torch.randn(1, 1, 16))

    def between(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        query = self.query.repeat(x.shape[0], 1, 1)
        hidden = (torch.arange(tokens.shape[1]) % 3 == 0)[None, None]
        scores = (query @ tokens.transpose(1, 2)).masked_fill(hidden, float("-inf")).softmax(-1)
        read = torch.hstack([scores @ tokens, query])[:, 0]
        return x + read[..., None, None]


class NewZeros(Base):
    def between(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 1:], x.new_zeros(x.shape[0], 1, x.shape[2], x.shape[3])], 1)


class SamplesAGrid(Base):
    def between(self, x: Tensor) -> Tensor:
        turn = torch.eye(2, 3)[None].expand(x.shape[0], -1, -1)
        return F.grid_sample(x, F.affine_grid(turn, list(x.shape), False), align_corners=False)


class RandomLeaks(Base):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.stem[2] = nn.RReLU()


class BiasesAlone(Base):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        layer = nn.Conv2d(16, 16, 3)
        nn.init.constant_(layer.weight, 1e-6)
        nn.init.constant_(layer.get_parameter("bias"), 1e3)
        self.conv = nn.Sequential(layer, nn.ReLU())


class Recurrent(Base):
    """Rows are read in both directions, from first states that are made for the batch."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.rows = nn.LSTM(16, 8, batch_first=True, bidirectional=True)

    def between(self, x: Tensor) -> Tensor:
        read: Tensor = self.rows(x.mean(3).transpose(1, 2))[0]
        return x + read.transpose(1, 2)[..., None]


class OfOneBatch(Base):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.conv[1] = nn.BatchNorm2d(16, track_running_stats=False)


class OfValues(Base):
    def between(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def scripted(num_classes: int) -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    )
    found: nn.Module = torch.jit.script(model)
    return found
