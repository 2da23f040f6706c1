"""Networks whose steps take milliseconds, and that a compiler is soon done with."""

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SmallNetwork", "SquaringNetwork"]


class SmallNetwork(nn.Module):
    """Residual, with all that quantization folds."""

    def __init__(self, num_classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.norm2(self.conv(x)))
        result: Tensor = self.head(self.drop(self.pool(x).flatten(1)))
        return result


class SquaringNetwork(nn.Module):
    """Overflows float32 where an image holds numbers above 1e20."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x).flatten(1)
        result: Tensor = self.head(pooled * pooled)
        return result
