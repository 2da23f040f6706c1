"""Small networks whose plans are known by heart, and quantized ones with hard numbers in them."""

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.quant.network import calibrate, quantize
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.schema import ActivationQuantizer, Quant, WeightQuantizer

__all__ = [
    "Attention",
    "Bottleneck",
    "BranchAndConcat",
    "Gated",
    "NoNorm",
    "Residual",
    "Shortcut",
    "Swish",
    "images",
    "policy",
    "quantized",
    "randomise",
]

TARGETS = ("onnxruntime",)


def policy(bits: int = 4, **options: object) -> Quant:
    """W and A of ``bits``; further fields of the section quant."""
    weight, activation = WeightQuantizer(bits=bits), ActivationQuantizer(bits=bits)
    return Quant(weight=weight, activation=activation).model_copy(update=options)


def images(count: int = 8, channels: int = 3, side: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def randomise(network: nn.Module) -> None:
    """BatchNorm with statistics, gains of both signs and shifts; a bias for every layer that has one."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(-1.5, 1.5)
                module.bias.normal_()


def quantized(model: nn.Module, quant: Quant | None = None) -> tuple[fx.GraphModule, Plan]:
    """Quantized and calibrated, in evaluation mode, with random BatchNorms."""
    torch.manual_seed(0)
    network, plan = quantize(model, quant or policy(), TARGETS)
    calibrate(network, [images(seed=2)])
    randomise(network)
    return network.eval(), plan


class Residual(nn.Module):
    """A stem with pooling, one block with a projection, global average, classifier."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(4)
        self.stem_relu = activation()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv1 = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.relu1 = activation()
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(6)
        self.shortcut = nn.Conv2d(4, 6, 1, bias=False)
        self.shortcut_bn = nn.BatchNorm2d(6)
        self.relu2 = activation()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem_relu(self.stem_bn(self.stem(x))))
        branch = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        x = self.relu2(branch + self.shortcut_bn(self.shortcut(x)))
        logits: Tensor = self.fc(self.flatten(self.average(x)))
        return logits


class Shortcut(nn.Module):
    """A value that a max pool, a convolution and a sum read."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.stem_relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem_relu(self.stem(x)))
        x = self.relu(self.conv(x) + x)
        x = self.relu(self.conv2(x) + x)
        logits: Tensor = self.head(x).mean((2, 3))
        return logits


class BranchAndConcat(nn.Module):
    """Two branches, one with a sigmoid gate, joined by a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.gate = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        left = self.left(x) * torch.sigmoid(self.gate(x))
        joined = torch.cat([left, F.relu(self.right(x))], 1)
        out: Tensor = self.last(joined)
        return out.mean((2, 3))


class NoNorm(nn.Module):
    """Convolutions without BatchNorm, a parameter and shapes in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.gain = nn.Parameter(torch.tensor([0.5, 1.0, 2.0, -1.0]).reshape(1, 4, 1, 1))
        self.fc = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.conv2(x) * self.gain + self.gain)
        out: Tensor = self.fc(x.reshape(x.size(0), -1))
        return out


class Gated(nn.Module):
    """A reader in float, the sigmoid, beside a reader of 4-bit codes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.body(F.relu(self.stem(x))))
        gated = F.relu(self.head(features)) * torch.sigmoid(features)
        out: Tensor = self.last(gated)
        return out.mean((2, 3))


class Bottleneck(nn.Module):
    """Linear bottlenecks as in MobileNetV2: signed values that pointwise convolutions read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(6)
        self.reduce = nn.Conv2d(6, 4, 1, bias=False)
        self.reduce_bn = nn.BatchNorm2d(4)
        self.expand = nn.Conv2d(4, 8, 1, bias=False)
        self.expand_bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(8)
        self.project = nn.Conv2d(8, 4, 1, bias=False)
        self.project_bn = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem_bn(self.stem(x)))
        x = self.reduce_bn(self.reduce(x))
        y = F.relu6(self.expand_bn(self.expand(x)))
        y = F.relu6(self.depthwise_bn(self.depthwise(y)))
        x = x + self.project_bn(self.project(y))
        out: Tensor = self.last(x)
        return out.mean((2, 3))


class Swish(nn.Module):
    """Activations bounded below before padded convolutions, as in EfficientNet and MobileNetV3.

    One of them is read by a padded convolution and by one without padding, one through a max pool.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(6)
        self.act = nn.SiLU()
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(6)
        self.project = nn.Conv2d(6, 6, 1)
        self.project_bn = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.body = nn.Conv2d(6, 4, (3, 5), (1, 2), padding=(1, 2), groups=2)
        self.last = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem_bn(self.stem(x)))
        x = self.depthwise_bn(self.depthwise(x)) + self.project_bn(self.project(x))
        x = self.body(self.pool(F.hardswish(x)))
        out: Tensor = self.last(F.gelu(x))
        return out.mean((2, 3))


class Attention(nn.Module):
    """A transformer's block on tokens of patches: attention, then a GELU between two linear layers."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 2, 2)
        self.position = nn.Parameter(torch.linspace(-0.5, 0.5, 16 * width).reshape(1, 16, width))
        self.norm1 = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(2 * width, width)
        self.norm3 = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        x = x + self._attend(self.norm1(x))
        x = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        logits: Tensor = self.head(self.norm3(x)[:, 0])
        return logits

    def _attend(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1], self.heads, -1)
        q, k, v = (layer(x).reshape(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = torch.matmul(q * 0.5, k.transpose(-2, -1)).softmax(-1)
        mixed = torch.matmul(weights, v).transpose(1, 2)
        out: Tensor = self.proj(mixed.reshape(x.shape[0], x.shape[1], -1))
        return out
