"""Images whose prediction deployment changed, small enough to be shown by the dozen."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from saq_qat.data.images import Images
from saq_qat.data.open import open_data
from saq_qat.data.sample import sample_validation
from saq_qat.data.transforms import Pixels
from saq_qat.errors import SaqError
from saq_qat.report.collect import Collected
from saq_qat.report.predictions import Predictions

__all__ = ["FlippedImage", "Flips", "data_uri", "flips_of"]

_LARGEST = 96  # pixels of a thumbnail's longer side
_QUALITY = 80  # of JPEG


@dataclass(frozen=True)
class FlippedImage:
    """An image, its true class, and the classes it was given before and after deployment.

    Attributes:
        name: index in the validation images, or the path of its file.
        picture: a data URI; empty where the image could not be read.
    """

    name: str
    label: str
    fake_quant: str
    deployed: str
    picture: str


@dataclass(frozen=True)
class Flips:
    """``total`` predictions differ, of ``images``; the first of them are ``shown``.

    Attributes:
        source: what was compared. missing: why there are no pictures; empty if there are.
    """

    total: int
    images: int
    source: str
    shown: tuple[FlippedImage, ...]
    missing: str


@dataclass(frozen=True)
class _Flip:
    place: int
    name: str
    label: int
    before: int
    after: int


def flips_of(
    known: Collected, predictions: Predictions | None, names: Sequence[str], most: int
) -> Flips | None:
    """Predictions that deployment changed, by verify's engine, else by eval's deploy view; None without both.

    Args:
        names: of the classes.
        most: pictures, at most.
    """
    if known.proof is not None:
        found = known.proof.agreement
        listed = [_Flip(f.index, f"image {f.index}", f.label, f.fake_quant, f.deployed) for f in found.listed]
        sample = found.images
        total, source = found.flips, "fake-quant network against ONNX Runtime, by saq-qat verify"
    elif predictions is not None and predictions.deployed is not None:
        places = np.flatnonzero(predictions.network != predictions.deployed)
        columns = predictions.labels, predictions.network, predictions.deployed
        listed = [_Flip(int(i), predictions.images[i], *(int(c[i]) for c in columns)) for i in places[:most]]
        total, sample = len(places), len(predictions.images)
        source = "fake-quant network against its deploy view in PyTorch, by saq-qat eval"
    else:
        return None
    listed = listed[:most]
    pictures, missing = _pictures(known, [flip.place for flip in listed], sample)
    shown = tuple(
        FlippedImage(
            flip.name,
            _class(names, flip.label),
            _class(names, flip.before),
            _class(names, flip.after),
            picture,
        )
        for flip, picture in zip(listed, pictures, strict=True)
    )
    return Flips(total, sample, source, shown, missing)


def _class(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else str(index)


def _pictures(known: Collected, places: Sequence[int], sample: int) -> tuple[list[str], str]:
    """Data URIs of validation images, and why there are none: data may be elsewhere than the run."""
    if not places:
        return [], ""
    try:
        images: Images = sample_validation(open_data(known.recipe.data, known.recipe.seed), sample).val
        return [data_uri(images.read(place)) for place in places], ""
    except SaqError as error:
        return [""] * len(places), f"The images cannot be read here: {error}"


def data_uri(pixels: Pixels) -> str:
    """A thumbnail of uint8 (H, W, 3): PNG of small images, which keep every pixel, else JPEG."""
    picture = Image.fromarray(pixels)
    form: Literal["png", "jpeg"] = "png" if max(picture.size) <= _LARGEST // 2 else "jpeg"
    picture.thumbnail((_LARGEST, _LARGEST))
    content = io.BytesIO()
    picture.save(content, form, **({"quality": _QUALITY} if form == "jpeg" else {"optimize": True}))
    return f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"
