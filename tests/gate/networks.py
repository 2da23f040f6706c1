"""The networks that mutants are tried on, with the recipes that train them: seconds for all three."""

from typing import cast

import torch
from torch import Tensor, nn

from tests.export.networks import Head, conv_block, disturb

__all__ = ["RECIPES"]


class ResidualCnn(nn.Module):
    """Max pool, residual sum, shortcut of stride 2, grouped and dilated convolutions, ReLU6, average."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_block(3, 8)
        self.pool = nn.MaxPool2d(2)
        self.branch = nn.Sequential(
            conv_block(8, 12, stride=2),
            nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=2, bias=False),
            nn.BatchNorm2d(12),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(8, 12, 1, 2, bias=False), nn.BatchNorm2d(12))
        self.depthwise = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6()
        )
        self.mix = nn.Sequential(nn.Conv2d(12, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.head = Head(12, num_classes)
        disturb(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = torch.relu(self.branch(x) + self.shortcut(x))
        return cast(Tensor, self.head(self.mix(self.depthwise(x))))


class Bottleneck(nn.Module):
    """Hardswish and a linear bottleneck: with ``offset: signed``, offsets before padded convolutions too."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.spread = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8))
        self.reduce = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.pool = nn.MaxPool2d(2)
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.head = Head(16, num_classes)
        disturb(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.pool(x + self.reduce(self.spread(x)))
        return cast(Tensor, self.head(self.expand(x)))


class TinyVit(nn.Module):
    """One block of a Vision Transformer on 17 tokens; the scale of attention, 0.25, is a power of two."""

    def __init__(self, num_classes: int = 10, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.5)
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.5)
        self.norm1 = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(2 * width, width)
        self.norm3 = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        for norm in (self.norm1, self.norm2, self.norm3):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        x = x + self._attend(self.norm1(x))
        x = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        return cast(Tensor, self.head(self.norm3(x)[:, 0]))

    def _attend(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1], self.heads, -1)
        q, k, v = (layer(x).reshape(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = torch.matmul(q * 0.25, k.transpose(-2, -1)).softmax(-1)
        mixed = torch.matmul(weights, v).transpose(1, 2)
        return cast(Tensor, self.proj(mixed.reshape(x.shape[0], x.shape[1], -1)))


_RECIPE = """
version: 1
name: {name}
model: {{name: "tests.gate.networks:{model}"}}
data: {{kind: synthetic, image_size: 16, train_size: 96, val_size: 32}}
quant:
  weight: {{kind: {kind}, bits: 4}}
  activation: {{kind: {kind}, bits: 4, offset: {offset}}}
  calibration_batches: 2
  overrides: [{{match: head*, activation_kind: saq}}]
train:
  batch_size: 16
  optimizer: {{kind: adamw}}
  stages:
    - {{kind: float, epochs: 2, lr: 0.005}}
    - {{kind: quantized, epochs: 1, lr: 0.002}}
{last}
deploy:
  targets: {targets}
  thresholds: {{max_top1_drop: 100, max_flip_rate: 1}}
  tensorrt: {{precision: {precision}}}
"""
# Nothing here may be found by the accuracy it costs: the thresholds allow everything.

_DEPLOY_STAGE = "    - {kind: deploy, epochs: 1, lr: 0.0002}"

_NETWORKS = {
    "cnn": {"model": "ResidualCnn", "kind": "saq", "offset": "none", "last": ""},
    "offsets": {"model": "Bottleneck", "kind": "lsq", "offset": "signed", "last": ""},
    "vit": {"model": "TinyVit", "kind": "lsq", "offset": "bounded", "last": _DEPLOY_STAGE},
}

_BOTH = {"targets": "[onnxruntime, tensorrt]", "precision": "float32"}
_HALVES = {"targets": "[tensorrt]", "precision": "float16"}
_OPENVINO = {"targets": "[openvino]", "precision": "float32"}

RECIPES = {name: _RECIPE.format(name=name, **settings, **_BOTH) for name, settings in _NETWORKS.items()} | {
    "halves": _RECIPE.format(name="halves", **_NETWORKS["vit"], **_HALVES),
    "openvino": _RECIPE.format(name="openvino", **_NETWORKS["cnn"], **_OPENVINO),
}
"""Recipe text by the name that the table gives its network; ``halves`` ships floats of 16 bits, ``openvino``
the file for OpenVINO."""
