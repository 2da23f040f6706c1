"""A network small enough to be trained, exported and measured within a test, and a run of it."""

from pathlib import Path

from torch import Tensor, nn

from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.run import run_training

__all__ = ["RECIPE", "Tiny", "small_recipe", "trained_run"]

RECIPE = """
version: 1
name: tiny
model: {name: "tests.report.networks:Tiny"}
data: {kind: digits, image_size: 8, train_limit: 64, val_limit: 40}
quant: {weight: {bits: 4}, activation: {bits: 4}, calibration_batches: 1}
train:
  batch_size: 16
  optimizer: {kind: sgd}
  stages:
    - {kind: float, epochs: 1, lr: 0.05}
    - {kind: quantized, epochs: 1, lr: 0.02}
deploy: {thresholds: {max_top1_drop: 100, max_flip_rate: 1}}  # of forty images one flip is 2.5 %
"""


class Tiny(nn.Module):
    """Two convolutions, one of them beside a shortcut."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)) + x)
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def small_recipe(*overrides: str) -> Recipe:
    """The recipe above with values set as on the command line."""
    return parse_recipe(RECIPE, "tiny", overrides)


def trained_run(folder: Path, *overrides: str) -> Path:
    """A run of the recipe, trained in ``folder``."""
    run_training(small_recipe(*overrides), folder)
    return folder
