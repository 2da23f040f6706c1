"""Residual networks of CIFAR experiments whose shortcuts have no weights: 20, 32, 44 and 56 layers.

Source: He et al., "Deep Residual Learning for Image Recognition" (2015), section 4.2, with its option A:
where the shape changes, the shortcut takes every second pixel and pads channels with zeros. Modules have the
names under which the networks of that paper are published (akamaster/pytorch_resnet_cifar10), so that those
files load as ``model.pretrained``. Slice and padding run in float between the codes of two quantizers;
``resnet_cifar`` has the network whose shortcuts are layers.

Inputs are float32 [N, 3, H, W] with H, W >= 16; outputs are logits [N, num_classes].
"""

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "OptionABlock",
    "OptionAResNet",
    "PaddedShortcut",
    "resnet20_option_a",
    "resnet32_option_a",
    "resnet44_option_a",
    "resnet56_option_a",
]

_WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Every second pixel of every second row, between equally many channels of zeros on both sides.

    [N, C, H, W] -> [N, C + 2 * padding, ceil(H / 2), ceil(W / 2)].
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class OptionABlock(nn.Module):
    """relu2(bn2(conv2(relu1(bn1(conv1(x))))) + shortcut(x)).

    [N, inputs, H, W] -> [N, outputs, H / stride, W / stride].
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity() if stride == 1 else PaddedShortcut((outputs - inputs) // 2)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(branch + self.shortcut(x))  # type: ignore[no-any-return]  # modules return Any


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    first = OptionABlock(inputs, outputs, 1 if inputs == outputs else 2)
    return nn.Sequential(first, *(OptionABlock(outputs, outputs, 1) for _ in range(blocks - 1)))


class OptionAResNet(nn.Module):
    """``6 * blocks + 2`` layers; 3x3 stem without pooling."""

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], blocks)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], blocks)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(_WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.avgpool(x)))  # type: ignore[no-any-return]  # modules return Any


def resnet20_option_a(num_classes: int = 10) -> OptionAResNet:
    """ResNet-20 without weights in shortcuts: float32 [N, 3, H, W] -> logits [N, num_classes]."""
    return OptionAResNet(3, num_classes)


def resnet32_option_a(num_classes: int = 10) -> OptionAResNet:
    """ResNet-32 without weights in shortcuts: float32 [N, 3, H, W] -> logits [N, num_classes]."""
    return OptionAResNet(5, num_classes)


def resnet44_option_a(num_classes: int = 10) -> OptionAResNet:
    """ResNet-44 without weights in shortcuts: float32 [N, 3, H, W] -> logits [N, num_classes]."""
    return OptionAResNet(7, num_classes)


def resnet56_option_a(num_classes: int = 10) -> OptionAResNet:
    """ResNet-56 without weights in shortcuts: float32 [N, 3, H, W] -> logits [N, num_classes]."""
    return OptionAResNet(9, num_classes)
