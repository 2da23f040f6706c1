"""The 20-layer residual networks of CIFAR experiments, in the post- and the pre-activation form.

Sources: He et al., "Deep Residual Learning for Image Recognition" (2015), section 4.2, and "Identity Mappings
in Deep Residual Networks" (2016), figure 4(e). Two choices serve quantization:

- Where the shape changes, the shortcut is a learned 1x1 convolution (option B of 2015), not the subsampled
  identity padded with zero channels (option A): padding has no integer kernel.
- Every activation is a module of its own, so that each can be named, and quantized, apart.

Inputs are float32 [N, 3, H, W] with H, W >= 16; outputs are logits [N, num_classes].
"""

from torch import Tensor, nn

__all__ = ["PostActivationBlock", "PreActivationBlock", "PreResNet20", "ResNet20", "preresnet20", "resnet20"]

_WIDTHS = (16, 32, 64)
_BLOCKS_PER_STAGE = 3


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class PostActivationBlock(nn.Module):
    """relu2(bn2(conv2(relu1(bn1(conv1(x))))) + shortcut(x)), with BatchNorm in a projecting shortcut.

    [N, inputs, H, W] -> [N, outputs, H / stride, W / stride].
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(branch + self.shortcut(x))  # type: ignore[no-any-return]  # modules return Any


class PreActivationBlock(nn.Module):
    """conv2(relu2(bn2(conv1(a)))) + shortcut, with a = relu1(bn1(x)).

    [N, inputs, H, W] -> [N, outputs, H / stride, W / stride]. The shortcut is x itself where the shape stays.
    Where it changes, it is a 1x1 convolution, without BatchNorm, of the tensor `a` that conv1 reads too
    (He et al. 2016, appendix): both convolutions then share one activation quantizer.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = _conv3x3(outputs, outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.bn1(x))
        branch = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        identity = x if self.shortcut is None else self.shortcut(activated)
        return branch + identity  # type: ignore[no-any-return]  # modules return Any


def _stages(block: type[PostActivationBlock] | type[PreActivationBlock]) -> list[nn.Sequential]:
    stages = []
    inputs = _WIDTHS[0]
    for index, outputs in enumerate(_WIDTHS):
        blocks: list[nn.Module] = []
        for position in range(_BLOCKS_PER_STAGE):
            blocks.append(block(inputs, outputs, stride=2 if index > 0 and position == 0 else 1))
            inputs = outputs
        stages.append(nn.Sequential(*blocks))
    return stages


class ResNet20(nn.Module):
    """Post-activation ResNet-20 with projection shortcuts; 3x3 stem without pooling."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(3, _WIDTHS[0])
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1, self.layer2, self.layer3 = _stages(PostActivationBlock)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(_WIDTHS[-1], num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.flatten(self.avgpool(x)))  # type: ignore[no-any-return]  # modules return Any


class PreResNet20(nn.Module):
    """Pre-activation ResNet-20, the paper's CIFAR network; BatchNorm and ReLU end the last stage."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(3, _WIDTHS[0])
        self.layer1, self.layer2, self.layer3 = _stages(PreActivationBlock)
        self.bn = nn.BatchNorm2d(_WIDTHS[-1])
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(_WIDTHS[-1], num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = self.relu(self.bn(x))
        return self.fc(self.flatten(self.avgpool(x)))  # type: ignore[no-any-return]  # modules return Any


def resnet20(num_classes: int = 10) -> ResNet20:
    """Post-activation ResNet-20: float32 [N, 3, H, W] -> logits [N, num_classes]."""
    return ResNet20(num_classes)


def preresnet20(num_classes: int = 10) -> PreResNet20:
    """Pre-activation ResNet-20: float32 [N, 3, H, W] -> logits [N, num_classes]."""
    return PreResNet20(num_classes)
