"""What a study's measurement of a recipe's run costs on this CPU: `python -m tests.docs.study_cost RECIPE`.

Weights are random. The passes are those of `saq_qat.analysis.study.measure`; memory is what a second, larger
batch needs beyond the first.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from saq_qat.analysis.surface import loss_surface
from saq_qat.models.probe import CHANNELS
from saq_qat.quant.network import calibrate
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.forms import network_in_form

__all__ = ["main"]

_CLASSES = 1000


def main() -> None:
    """Print seconds of one core for an image, and the memory that an image of a batch adds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--images", type=int, nargs=2, default=(2, 6), help="of the two batches")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    network = _random(recipe)
    peaks = [_measured(network, _batch(recipe, images)) for images in arguments.images]
    added = (peaks[1] - peaks[0]) / (arguments.images[1] - arguments.images[0])
    print(f"memory for each image of a batch of a product: {added / 1e9:.2f} GB")


def _random(recipe: Recipe) -> nn.Module:
    torch.manual_seed(0)
    network, _ = network_in_form(recipe, _CLASSES, "quantized")
    assert isinstance(network, fx.GraphModule)
    calibrate(network, [_batch(recipe, 2)])
    return network.eval()


def _batch(recipe: Recipe, images: int) -> Tensor:
    side = recipe.data.image_size
    return torch.randn(images, CHANNELS, side, side)


def _measured(network: nn.Module, images: Tensor) -> int:
    """Peak bytes of this process behind one product of the Hessian and a vector."""
    labels = torch.arange(len(images))
    with torch.no_grad():
        _timed("fake-quant pass", len(images), lambda: network(images))
    with loss_surface(network, [(images, labels)]) as surface:
        vector = [torch.randn_like(slot) for slot in surface.slots]
        _timed("product of the Hessian", len(images), lambda: surface.hessian_product(vector))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _timed(what: str, images: int, work: Callable[[], object]) -> None:
    begun = time.process_time()
    work()
    print(f"{what}, batch of {images}: {(time.process_time() - begun) / images:.2f} s of one core an image")


if __name__ == "__main__":
    main()
