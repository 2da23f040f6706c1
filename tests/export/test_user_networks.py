"""Networks of a user's own making: exact where they can be lowered, refused in words where they cannot."""

from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.errors import LegalityError
from saq_qat.quant.network import quantize
from saq_qat_export.proof.codes import code_comparisons, tie_images
from saq_qat_export.proof.tensors import producers
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.export.networks import CLASSES, SIDE, Head, conv_block, lower, policy, smooth_images


class _Base(nn.Module):
    """Stem of 8 channels and a head; subclasses say what lies between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_block(3, 8)
        self.first = conv_block(8, 8)
        self.second = conv_block(8, 8, 1)
        self.head = Head(8)

    def between(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.between(self.stem(x))))


class Concatenation(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.joined = conv_block(16, 8)

    def between(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.joined(torch.cat([self.first(x), self.second(x)], 1)))


class SigmoidBetween(_Base):
    def between(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.second(torch.sigmoid(self.first[0](x))))


class AveragePool(_Base):
    def between(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.first(F.avg_pool2d(x, 2)))


class SqueezeAndAdd(_Base):
    """A sum that broadcasts its first term over height and width."""

    def between(self, x: Tensor) -> Tensor:
        gate = self.second[0](F.adaptive_avg_pool2d(x, 1))
        return cast(Tensor, self.first(F.relu(gate + x)))


class Twice(_Base):
    """The same tensor on both sides of a sum."""

    def between(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return cast(Tensor, self.second(y + y))


class Weighted(_Base):
    """A sum with a factor, and sums with numbers: float arithmetic."""

    def between(self, x: Tensor) -> Tensor:
        return torch.add(self.first(x * 0.5 + 1), x, alpha=2)


class Chunks(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.narrow = conv_block(4, 8)

    def between(self, x: Tensor) -> Tensor:
        a, b = torch.chunk(x, 2, 1)
        return cast(Tensor, self.narrow(a + b))


class Grouped(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.grouped = conv_block(8, 12, stride=2, groups=4)
        self.head = Head(12)

    def between(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.grouped(x))


class ViewBySize(nn.Module):
    """``x.view(x.size(0), -1)``, as many networks flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_block(3, 4)
        self.fc = nn.Linear(4 * SIDE * SIDE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return cast(Tensor, self.fc(x.view(x.size(0), -1)))


class MeanHead(nn.Module):
    """``x.mean([2, 3])`` and dropout before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_block(3, 8)
        self.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc(self.stem(x).mean([2, 3])))


class Perceptron(nn.Module):
    """Linear layers only, with a residual sum of vectors: no kernel of it writes codes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3 * SIDE * SIDE, 32)
        self.norm = nn.BatchNorm1d(32)
        self.inner = nn.Linear(32, 32)
        self.last = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(torch.flatten(x, 1))))
        return cast(Tensor, self.last(F.relu(x + self.inner(x))))


class Tokens(nn.Module):
    """Linear layers on tokens (N, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_block(3, 8)
        self.mix = nn.Linear(8, 8)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return cast(Tensor, self.fc(F.relu(self.mix(x)).mean(1)))


FLOAT_PARTS: dict[type[nn.Module], set[str]] = {
    Concatenation: {"cat.codes"},
    SigmoidBetween: {"sigmoid.codes"},
    AveragePool: {"avg_pool2d.codes"},
    SqueezeAndAdd: set(),
    Twice: set(),
    Grouped: set(),
    ViewBySize: set(),
    MeanHead: set(),
    Perceptron: {"relu.codes", "relu_1.codes"},
    Tokens: {"mean.codes"},
}


# Seconds for each, and operations that networks of other tests have too.
SLOW = (Twice, Grouped, ViewBySize, MeanHead)


@pytest.mark.parametrize(
    "kind",
    [
        # Why some are slow stands above.
        pytest.param(kind, id=kind.__name__, marks=pytest.mark.slow if kind in SLOW else ())
        for kind in (*FLOAT_PARTS, Weighted, Chunks)
    ],
)
def test_an_own_network_is_exact_and_runs_on_integer_kernels(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    found = lower(kind(), policy(4, 4), smooth_images(16, SIDE))
    ties = tie_images(found.view, (3, SIDE, SIDE))
    reference, double, _ = code_comparisons(found.view, found.graph, [smooth_images(16, SIDE, seed=1)], ties)
    assert (reference.mismatches, reference.passed) == (0, True), reference.detail
    assert double.passed, double.detail
    kernels = OnnxRuntimeBackend(found.graph.content).integer_count()
    assert kernels.integer == kernels.total == len(found.plan.layers)
    if kind in FLOAT_PARTS:
        found_float = {name for name, producer in producers(found.view).items() if producer == "float"}
        assert found_float == FLOAT_PARTS[kind]


class TwoOutputs(_Base):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # not one tensor, on purpose
        x = self.stem(x)
        return self.head(self.first(x)), self.head.fc(self.head.pool(x).flatten(1))


class Named(_Base):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # not one tensor, on purpose
        return {"logits": self.head(self.stem(x))}


@pytest.mark.parametrize("kind", [TwoOutputs, Named], ids=lambda kind: kind.__name__)
def test_several_outputs_are_refused_before_training(kind: type[nn.Module]) -> None:
    with pytest.raises(LegalityError, match=rf"gives one tensor.*{kind.__name__} returns.*Wrap it"):
        quantize(kind(), policy(4, 4), ("onnxruntime",))
