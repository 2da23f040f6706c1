"""What a training begins with, tried before there is a run: the images, and a network that takes them."""

from torch import nn

from saq_qat.data.open import ImageData, open_data
from saq_qat.models.build import build_model
from saq_qat.models.probe import check_takes_images
from saq_qat.recipe.schema import Recipe
from saq_qat.train.log_copies import check_log_copies
from saq_qat.train.statistics import check_statistics

__all__ = ["beginning"]


def beginning(recipe: Recipe) -> tuple[nn.Module, ImageData]:
    """The network with the weights it starts from, and the images.

    Raises:
        SaqError: images or weights are not there, or the network does not take these images.
    """
    images = open_data(recipe.data, recipe.seed)
    model = build_model(recipe.model, len(images.classes))
    check_takes_images(model, recipe.data.image_size, len(images.classes), recipe.model.name)
    check_statistics(recipe, model)
    check_log_copies(recipe.train.logs)
    return model, images
