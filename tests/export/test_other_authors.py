"""Ways other libraries and users write a network: each lowered exactly, for both targets, by a rule."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from saq_qat.models import separate_attention
from saq_qat.quant.network import calibrate, quantize
from saq_qat_export.graph.onnx_graph import export_tensorrt
from saq_qat_export.proof.codes import code_comparisons, tie_images
from saq_qat_export.proof.tensorrt import TensorRtGraphs, tensorrt_comparisons
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.export.networks import CLASSES, Head, conv_block, lower, policy, smooth_images

SIDE = 12
BOTH = ("onnxruntime", "tensorrt")


class OwnNorm(nn.BatchNorm2d):
    """A BatchNorm that normalises by the function and holds its activation."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        statistics = (self.running_mean, self.running_var, self.weight, self.bias)
        return cast(Tensor, self.act(F.batch_norm(x, *statistics, self.training, 0.1, self.eps)))


class Cnn(nn.Module):
    """A stem, something between, and a head."""

    def __init__(self, between: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.stem = conv_block(3, 8)
        self.between = between
        self.last = conv_block(8, 8)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return cast(Tensor, self.head(self.last(x if self.between is None else self.between(x))))


class Gated(nn.Module):
    """Gate, stochastic depth and sum, as MobileNetV3 and EfficientNet have them."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.project, self.gate, self.depth = (
            conv_block(8, 8)[:2],
            nn.Hardsigmoid(),
            StochasticDepth(0.2, "row"),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.norm(self.conv(x)))
        gate = self.gate(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(y, 1)))))
        return cast(Tensor, x + self.depth(self.project(gate * y)))


class Shuffled(nn.Module):
    """Halves, one convolved, joined and shuffled, as ShuffleNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.block = conv_block(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        x = torch.cat([a, self.block(b)], dim=1)
        n, c, h, w = x.size()
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class SqueezedHead(nn.Module):
    """An average squeezed by name, dropout in place, two classifiers averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.drop = conv_block(3, 8), nn.Dropout(0.2, inplace=True)
        self.first, self.second = nn.Linear(8, CLASSES), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.stem(x), (1, 1)).squeeze(-1).squeeze(-1)
        x = self.drop(x)
        return cast(Tensor, (self.first(x) + self.second(x)) / 2)


CNNS: dict[str, Callable[[], nn.Module]] = {
    "own BatchNorm": lambda: Cnn(nn.Sequential(nn.Conv2d(8, 8, 3, padding="same", bias=False), OwnNorm(8))),
    "reflected": lambda: Cnn(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")),
    "pooled, rounded up": lambda: Cnn(nn.MaxPool2d(3, 2, ceil_mode=True)),
    "pooled beyond padding": lambda: Cnn(nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)),
    "clamped": lambda: Cnn(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Hardtanh(0, 6))),
    "gated": lambda: Cnn(Gated()),
    "shuffled": lambda: Cnn(Shuffled()),
    "identities": lambda: Cnn(nn.Sequential(nn.Conv2d(8, 8, 1), nn.Identity(), nn.BatchNorm2d(8), nn.ReLU())),
    "squeezed": SqueezedHead,
}


class Transformer(nn.Module):
    """Patches, one attention of this kind with a residual, and a head."""

    def __init__(self, attention: Callable[[Tensor, Tensor, Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.attention, self.head = attention, nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if isinstance(self.attention, nn.Module):
            return cast(Tensor, self.head(self.attention(x).mean(1)))
        branches = self.qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (branch.unflatten(-1, (2, 8)).transpose(1, 2) for branch in branches)
        x = x + self.proj(self.attention(q, k, v).transpose(1, 2).flatten(2))
        return cast(Tensor, self.head(x.mean(1)))


def einstein(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (torch.einsum("bhid,bhjd->bhij", q, k) * 0.3).softmax(-1)
    return torch.einsum("bhij,bhjd->bhid", weights, v)


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 24, 0.1, "gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    "one call": lambda: Transformer(F.scaled_dot_product_attention),
    "one call, own scale": lambda: Transformer(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.25)
    ),
    "einsum": lambda: Transformer(einstein),
    "torch's encoder": lambda: separate_attention(Transformer(encoder())),
}
NETWORKS = CNNS | TRANSFORMERS


# Another quick one pools rounded up; tests/quant/trace/test_decompose.py compares what scales attention.
# Seconds for each; all of them learn below.
SLOW = ("pooled, rounded up", "one call, own scale", "one call", "clamped", "shuffled", "identities")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NETWORKS]
)
def test_a_network_of_another_author_is_exact_on_integer_kernels_for_both_targets(name: str) -> None:
    torch.manual_seed(0)
    found = lower(NETWORKS[name](), policy(4, 4), smooth_images(16, SIDE), targets=BOTH)
    ties, batches = tie_images(found.view, (3, SIDE, SIDE)), [smooth_images(8, SIDE, seed=1)]
    reference, double, _ = code_comparisons(found.view, found.graph, batches, ties)
    assert reference.passed and double.passed, (reference.detail, double.detail)
    assert not [tensor for tensor in reference.tensors if tensor.producer == "integer" and tensor.mismatches]
    kernels = OnnxRuntimeBackend(found.graph.content).integer_count()
    assert kernels.integer == kernels.total == len(found.plan.layers) + len(found.plan.products)
    assert len(found.plan.products) == (2 if name in TRANSFORMERS else 0)
    graphs = TensorRtGraphs(export_tensorrt(found.view, (3, SIDE, SIDE)))
    for comparison in tensorrt_comparisons(found.view, found.graph, graphs, batches, ties):
        assert comparison.passed, comparison


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_learns(name: str) -> None:
    """What is overwritten in place, or traced in one mode, fails here or trains nothing."""
    torch.manual_seed(0)
    network, plan = quantize(NETWORKS[name](), policy(4, 4), BOTH)
    calibrate(network, [smooth_images(16, SIDE)])
    network.train()(smooth_images(8, SIDE, seed=1)).square().sum().backward()
    without = [layer.name for layer in plan.layers if network.get_submodule(layer.name).weight.grad is None]
    assert without == []
