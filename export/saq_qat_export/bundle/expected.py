"""What the fake-quant network answers to validation images, for machines on which the network runs."""

import io
from pathlib import Path

from PIL import Image

from saq_qat.data.images import FileImages, Images
from saq_qat.data.names import image_names
from saq_qat.data.sample import sample_indices
from saq_qat.data.transforms import EncodedImage
from saq_qat.errors import ArtifactError, SaqError
from saq_qat.train.restore import Restored
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.predictions import Agreement
from saq_qat_runtime.bundle.expected import Expected

__all__ = [
    "check_images_destination",
    "expected_answers",
    "expected_comparison",
    "labels_by_name",
    "write_images",
]

_ANSWERS = "answers of the fake-quant network = expected.csv"


def expected_answers(restored: Restored, agreement: Agreement) -> Expected:
    """Image, label and answer of every image that the proof classified, in its order.

    Of an image folder, images are called by their paths below the folder of their split; of other data, whose
    images are no files, by the names that ``write_images`` gives them.
    """
    images = restored.images.val
    chosen = sample_indices(restored.images, agreement.images).tolist()
    names = image_names(restored.recipe.data, images)
    return Expected(
        tuple(_file_name(images, names[index], index) for index in chosen),
        tuple(int(images.labels[index]) for index in chosen),
        agreement.fake_quant,
    )


def labels_by_name(restored: Restored) -> dict[str, int]:
    """The label of every validation image by the name that ``expected_answers`` gives it."""
    images = restored.images.val
    names = image_names(restored.recipe.data, images)
    return {_file_name(images, name, i): int(images.labels[i]) for i, name in enumerate(names)}


def expected_comparison(expected: Expected, restored: Restored, agreement: Agreement) -> Comparison:
    """The answers in a bundle beside those that the fake-quant network gives now, on the images of both.

    Its float32 rounds otherwise on another machine, where later layers amplify that: so a soft comparison,
    within the share of answers that deployment may change.
    """
    now = expected_answers(restored, agreement)
    answers = dict(zip(now.images, now.predictions, strict=True))
    pairs = zip(expected.images, expected.predictions, strict=True)
    differ = [answers[image] != answer for image, answer in pairs if image in answers]
    allowed = restored.recipe.deploy.thresholds.max_flip_rate * len(differ)
    return Comparison(_ANSWERS, False, sum(differ) <= allowed, len(differ), sum(differ), "")


def check_images_destination(folder: Path) -> None:
    """Raises ArtifactError unless ``folder`` is a new or an empty one."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(
            f"{folder}: images go to a new or an empty folder, and this holds something. Name another folder."
        )


def write_images(restored: Restored, agreement: Agreement, folder: Path) -> int:
    """Write every image of ``expected_answers`` into ``folder`` under its name, and give their number.

    Files and what was encoded already are written byte for byte; arrays become PNG, which loses nothing.

    Raises:
        ArtifactError: ``folder`` holds something. SaqError: the disk is full, or it cannot be written.
    """
    check_images_destination(folder)
    chosen = sample_indices(restored.images, agreement.images).tolist()
    names = expected_answers(restored, agreement).images
    try:
        for index, name in zip(chosen, names, strict=True):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_content(restored.images.val, index))
    except OSError as error:
        raise SaqError(f"{error.filename or folder}: cannot be written or read: {error.strerror}.") from error
    return len(chosen)


def _file_name(images: Images, name: str, index: int) -> str:
    source = images.paths[index] if isinstance(images, FileImages) else None
    if isinstance(source, Path):
        return name
    if isinstance(source, EncodedImage):
        with Image.open(io.BytesIO(source.content)) as image:
            return f"{name}.{(image.format or 'image').lower()}"
    return f"{name}.png"


def _content(images: Images, index: int) -> bytes:
    if isinstance(images, FileImages):
        source = images.paths[index]
        return source.content if isinstance(source, EncodedImage) else source.read_bytes()
    buffer = io.BytesIO()
    Image.fromarray(images.read(index)).save(buffer, "PNG")
    return buffer.getvalue()
