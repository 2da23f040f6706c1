"""A network of the caller's own as what a proof starts from: its weights, a recipe of it, images."""

import copy
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from saq_qat.data.given import Labelled, given_images
from saq_qat.data.open import ImageData
from saq_qat.door.network import QuantizedNetwork
from saq_qat.errors import DataError
from saq_qat.recipe.load import parse_section
from saq_qat.recipe.schema import CalibrationStage, Memory, Model, Recipe, Train
from saq_qat.train.adopt import adopt
from saq_qat.train.restore import Restored
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import ModelError

__all__ = ["OwnNetwork", "own_network", "preprocessing_of"]


@dataclass(frozen=True)
class OwnNetwork:
    """A copy of a network as it was when it was exported, and the images that proved it."""

    network: QuantizedNetwork
    recipe: Recipe
    images: ImageData

    @contextmanager
    def restored(self) -> Iterator[Restored]:
        """The network by way of a checkpoint, which is gone afterwards."""
        own = self.network
        with tempfile.TemporaryDirectory(prefix="saq-qat-") as folder:
            yield adopt(own.network, own.plan, self.recipe, self.images, own.form, Path(folder))


def own_network(
    network: QuantizedNetwork,
    images: Labelled,
    preprocessing: Preprocessing,
    *,
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> OwnNetwork:
    """Take a network as it is now; arguments as of ``saq_qat.export``.

    Raises:
        DataError: the images, or the number of classes.
        RecipeError: the name is none for a file.
    """
    named = tuple(map(str, range(network.classes) if classes is None else classes))
    if len(named) != network.classes:
        raise DataError(
            f"The network gives {network.classes} logits, so it has so many classes; got {len(named)}."
        )
    data = given_images(images, named, preprocessing)
    return OwnNetwork(copy.deepcopy(network).cpu(), _recipe(network, preprocessing, name), data)


def preprocessing_of(
    network: QuantizedNetwork,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    resize: int | None,
) -> Preprocessing:
    """How pictures become the network's input.

    Raises:
        DataError: mean or std have another number of channels, a deviation is not positive, or the short side
            is less than the crop.
    """
    channels, side, _ = network.image
    own_mean, own_std = (0.0,) * channels if mean is None else mean, (1.0,) * channels if std is None else std
    try:
        return Preprocessing(side, resize, channels, tuple(map(float, own_mean)), tuple(map(float, own_std)))
    except ModelError as error:
        raise DataError(f"export: how images are prepared: {error}") from None


def _recipe(network: QuantizedNetwork, preprocessing: Preprocessing, name: str | None) -> Recipe:
    """What saq-qat knows of a network that another loop trained: its class, its quantizers, its targets."""
    own = re.sub(r"[^A-Za-z0-9._-]", "-", network.origin.rpartition(":")[2].rpartition(".")[2])
    data = Memory(
        kind="memory", image_size=preprocessing.image_size, mean=preprocessing.mean, std=preprocessing.std
    )
    values = {
        "version": 1,
        "name": own if name is None else name,
        "model": Model(name=network.origin),
        "data": data,
        "quant": network.quant,
        "train": Train(batch_size=1, stages=(CalibrationStage(kind="calibration"),)),
        "deploy": network.deploy,
    }
    return parse_section(Recipe, values, "export")
