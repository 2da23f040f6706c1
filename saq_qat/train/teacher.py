"""The teacher of a training: loaded, held against the images it will see, and known by its hash."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from saq_qat.data.open import ImageData
from saq_qat.data.record import data_differences, data_record
from saq_qat.errors import ArtifactError, DataError, RecipeError
from saq_qat.models.build import build_model
from saq_qat.optim.distillation import Distillation
from saq_qat.recipe.schema import Model, Teacher
from saq_qat.train.checkpoint import packed
from saq_qat.train.restore import restore

__all__ = ["LoadedTeacher", "load_teacher"]

# What makes a tensor of an image; how a validation image is cropped first is the teacher's own affair.
_INPUT = ("image_size", "channels", "mean", "std")


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher ready to be asked.

    Attributes:
        source: the run or the file of weights, as the recipe names it.
        sha256: of its weights as a safetensors file; a run's teacher has that of its model.safetensors.
    """

    distillation: Distillation
    source: str
    sha256: str


def load_teacher(wanted: Teacher, images: ImageData, device: torch.device) -> LoadedTeacher:
    """The teacher of a recipe whose images are ``images``, on ``device`` and in the mode it teaches in.

    Raises:
        RecipeError: it knows other classes, or expects another input.
        ArtifactError: the run, its checkpoint or the file of weights is missing, damaged or does not fit.
        DataError: the images of its run are gone.
    """
    try:
        if wanted.run is not None:
            source, network = wanted.run, _of_run(Path(wanted.run), wanted, images)
        else:
            source, network = _of_file(wanted.model, images)
        _check_logits(network, images)
    except (ArtifactError, DataError, RecipeError) as error:
        raise type(error)(f"train.teacher: {error}") from error
    digest = hashlib.sha256(packed({k: v.clone() for k, v in network.state_dict().items()})).hexdigest()
    network = network.requires_grad_(False).to(device).train(wanted.mode == "train")
    distillation = Distillation(network, wanted.weight, wanted.label_weight, wanted.temperature)
    return LoadedTeacher(distillation, source, digest)


def _of_run(run: Path, wanted: Teacher, images: ImageData) -> nn.Module:
    restored = restore(run, wanted.checkpoint)
    of_teacher, here = data_record(restored.images), data_record(images)
    differences = list(data_differences(of_teacher, here, now="here", only=_INPUT))
    if differences:
        raise RecipeError(
            f"{run}: a teacher must know the classes of this recipe and expect its input:\n"
            + "\n".join(f"  {line}" for line in differences)
            + "\nChange data to fit the teacher, or choose another teacher."
        )
    return restored.network


def _of_file(model: Model | None, images: ImageData) -> tuple[str, nn.Module]:
    if model is None or model.pretrained is None:
        raise RecipeError("a teacher is a run, or a model with its file of weights as pretrained; give one.")
    return model.pretrained, build_model(model, len(images.classes))


@torch.no_grad()
def _check_logits(network: nn.Module, images: ImageData) -> None:
    """Ask for one black image: a network of one's own may have any output."""
    shape = images.preprocessing
    found = network.eval()(torch.zeros(1, shape.channels, shape.image_size, shape.image_size))
    wanted = (1, len(images.classes))
    if tuple(getattr(found, "shape", ())) != wanted:
        got = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise RecipeError(
            f"the network must turn an image into {wanted[1]} logits, shape {wanted}, one for each class of "
            f"data; it gives {got}."
        )
