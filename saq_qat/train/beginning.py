"""What a training begins with, tried before there is a run: images, network and teacher, which take them."""

import torch
from torch import nn

from saq_qat.data.open import ImageData, open_data
from saq_qat.models.build import build_model
from saq_qat.models.probe import check_takes_images
from saq_qat.recipe.schema import Recipe
from saq_qat.train.log_copies import check_log_copies
from saq_qat.train.statistics import check_statistics
from saq_qat.train.teacher import load_teacher

__all__ = ["beginning"]


def beginning(recipe: Recipe) -> tuple[nn.Module, ImageData]:
    """The network with the weights it starts from, and the images.

    Raises:
        SaqError: images, weights or the teacher are not there, or a network does not take these images.
    """
    images = open_data(recipe.data, recipe.seed)
    model = build_model(recipe.model, len(images.classes))
    check_takes_images(model, recipe.data.image_size, len(images.classes), recipe.model.name)
    check_statistics(recipe, model)
    if recipe.train.teacher is not None:
        load_teacher(recipe.train.teacher, images, torch.device("cpu"))
    check_log_copies(recipe.train.logs)
    return model, images
