"""The smallest recipe of a whole training: two steps of a small network at four bits."""

from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe

__all__ = ["INFINITE", "SMALL_RECIPE", "small_recipe"]

SMALL_RECIPE = """
version: 1
name: small
model: {name: "tests.train.small_network:SmallNetwork"}
data: {kind: synthetic, image_size: 8, train_size: 32, val_size: 8}
quant: {weight: {bits: 4}, activation: {bits: 4}, calibration_batches: 1}
train:
  batch_size: 16
  optimizer: {kind: sgd}
  stages: [{kind: quantized, epochs: 1, lr: 0.1}]
"""

INFINITE = (
    "model.name=tests.train.small_network:SquaringNetwork",
    "data.mean=[1.0e+18,1.0e+18,1.0e+18]",
    "data.std=[1.0e-6,1.0e-6,1.0e-6]",
    "quant=null",
)
"""Makes the loss of every batch infinite, by numbers that recipes allow."""


def small_recipe(*overrides: str) -> Recipe:
    """The recipe above with values set as on the command line."""
    return parse_recipe(SMALL_RECIPE, "small", overrides)
