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


@dataclass(frozen=True)
class _Found:
    """How many of the first ``images`` validation images flipped, and (the first of) which."""

    total: int
    images: int
    source: str
    listed: Sequence[_Flip]


def flips_of(
    known: Collected, predictions: Predictions | None, names: Sequence[str], most: int
) -> Flips | None:
    """Predictions that deployment changed, by verify's engine, else by eval's deploy view; None without both.

    Args:
        names: of the classes.
        most: pictures, at most.
    """
    found = _by_verify(known) or _by_eval(predictions)
    if found is None:
        return None
    listed = found.listed[:most]
    pictures, missing = _pictures(known, [flip.place for flip in listed], found.images)
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
    return Flips(found.total, found.images, found.source, shown, missing)


def _by_verify(known: Collected) -> _Found | None:
    if known.proof is None:
        return None
    found = known.proof.agreement
    listed = [_Flip(f.index, f"image {f.index}", f.label, f.fake_quant, f.deployed) for f in found.listed]
    source = "fake-quant network against ONNX Runtime, by saq-qat verify"
    return _Found(found.flips, found.images, source, listed)


def _by_eval(found: Predictions | None) -> _Found | None:
    if found is None or found.deployed is None:
        return None
    columns = found.labels, found.network, found.deployed
    places = np.flatnonzero(found.network != found.deployed).tolist()
    listed = [_Flip(place, found.images[place], *(int(c[place]) for c in columns)) for place in places]
    source = "fake-quant network against its deploy view in PyTorch, by saq-qat eval"
    return _Found(len(places), len(found.images), source, listed)


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
