"""Quantized networks with hard numbers: random statistics, gains of both signs, biases that matter."""

from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import cast

import torch
from torch import Tensor, fx, nn

from saq_qat.models.build import build_model
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.network import calibrate, quantize
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.schema import ActivationQuantizer, Deploy, Model, Quant, WeightQuantizer
from saq_qat_export.graph.onnx_graph import OnnxGraph, export_onnx

CLASSES = 10


@dataclass(frozen=True, eq=False)
class Lowered:
    """A quantized network at every stage of its way to ONNX.

    Attributes:
        images: (N, C, H, W), of the size that the graph is for.
    """

    network: fx.GraphModule
    plan: Plan
    view: fx.GraphModule
    images: Tensor
    deploy: Deploy = field(default_factory=Deploy)

    @cached_property
    def graph(self) -> OnnxGraph:
        """For ONNX Runtime; exported when a test first asks for it, which takes most of the time."""
        _, channels, height, width = self.images.shape
        return export_onnx(self.view, (channels, height, width), self.deploy)


def policy(weight_bits: int, activation_bits: int, **settings: object) -> Quant:
    """The recipe's ``quant`` section at W and A bits."""
    return Quant.model_validate(
        {
            "weight": WeightQuantizer(bits=weight_bits),
            "activation": ActivationQuantizer(bits=activation_bits),
            **settings,
        }
    )


def smooth_images(count: int, side: int, *, channels: int = 3, seed: int = 0) -> Tensor:
    """Normalised float32 images (count, C, side, side) with the large areas that photographs have."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, channels, 4, 4, generator=generator)
    fine = torch.randn(count, channels, side, side, generator=generator)
    return nn.functional.interpolate(coarse, side, mode="bicubic") * 1.2 + 0.2 * fine


def disturb(model: nn.Module, *, seed: int = 0) -> None:
    """Give BatchNorms gains of both signs and shifts, and layers biases, as training would but harsher."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            sign = torch.where(torch.rand(module.num_features, generator=generator) < 0.2, -1.0, 1.0)
            gain = torch.rand(module.num_features, generator=generator) * 1.1 + 0.4
            module.weight.data.copy_(sign * gain)
            module.bias.data.normal_(0, 0.3, generator=generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            module.bias.data.normal_(0, 0.1, generator=generator)


ONNX_RUNTIME = ("onnxruntime",)


def quantized(
    model: nn.Module,
    quant: Quant,
    images: Tensor,
    *,
    targets: tuple[str, ...] = ONNX_RUNTIME,
    seed: int = 0,
) -> tuple[fx.GraphModule, Plan]:
    """``model`` quantized, disturbed and calibrated on ``images``, in evaluation mode."""
    disturb(model, seed=seed)
    network, plan = quantize(model, quant, targets)
    calibrate(network, [images])
    return network.eval(), plan


def lower(
    model: nn.Module,
    quant: Quant,
    images: Tensor,
    deploy: Deploy | None = None,
    *,
    targets: tuple[str, ...] = ONNX_RUNTIME,
    seed: int = 0,
) -> Lowered:
    """The whole way from a float model to ONNX."""
    deploy = deploy or Deploy()
    network, plan = quantized(model, quant, images, targets=targets, seed=seed)
    return Lowered(network, plan, deploy_view(network, deploy), images, deploy)


def conv_block(
    inputs: int, outputs: int, side: int = 3, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Head(nn.Module):
    """Global average and classifier."""

    def __init__(self, features: int, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc(torch.flatten(self.pool(x), 1)))


class Small(nn.Module):
    """Every pattern in little: max pool, residual sum, shortcut, depthwise ReLU6, average, classifier."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = conv_block(3, 8)
        self.pool = nn.MaxPool2d(2)
        self.branch = nn.Sequential(conv_block(8, 12), nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12))
        self.shortcut = nn.Sequential(nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12))
        self.depthwise = nn.Sequential(
            nn.Conv2d(12, 12, 3, stride=2, groups=12, bias=False), nn.BatchNorm2d(12)
        )
        self.activation = nn.ReLU6()
        self.head = Head(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = torch.relu(self.branch(x) + self.shortcut(x))
        return cast(Tensor, self.head(self.activation(self.depthwise(x))))


SIDE = 16


@cache
def small(
    weight_bits: int = 4, activation_bits: int = 4, *, refine_bias: bool = True, pack_weights: bool = True
) -> Lowered:
    """``Small`` on 16 images of 16 x 16 pixels; made once for all tests of a process."""
    torch.manual_seed(0)
    deploy = Deploy(refine_bias=refine_bias, pack_weights=pack_weights)
    return lower(Small(), policy(weight_bits, activation_bits), smooth_images(16, SIDE), deploy)


@cache
def built_in(name: str, weight_bits: int, activation_bits: int, side: int, count: int = 2) -> Lowered:
    """A built-in network on smooth images; made once for all tests of a process."""
    torch.manual_seed(0)
    model = build_model(Model(name=name), CLASSES)
    return lower(model, policy(weight_bits, activation_bits), smooth_images(count, side))
