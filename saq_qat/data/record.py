"""What a trained network knows of its data: the names of its classes, and how an image becomes its input.

Neither stands in its weights, and both can change under it: a folder renamed, a mean edited. The checkpoint
therefore keeps them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from saq_qat.data.open import ImageData
from saq_qat.errors import ArtifactError
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import ModelError

__all__ = [
    "DataRecord",
    "check_data_record",
    "data_differences",
    "data_record",
    "data_record_from_json",
    "data_record_to_json",
]

_SHOWN = 5


@dataclass(frozen=True)
class DataRecord:
    """``classes``: their names, in the order of the logits."""

    classes: tuple[str, ...]
    preprocessing: Preprocessing


def data_record(images: ImageData) -> DataRecord:
    """Of the images that a network is trained on."""
    return DataRecord(images.classes, images.preprocessing)


def data_record_to_json(record: DataRecord) -> dict[str, Any]:
    """As JSON has it: objects, lists, numbers and words."""
    return asdict(record)


def data_record_from_json(value: Any, where: str) -> DataRecord:
    """A record back from what ``data_record_to_json`` made.

    Raises:
        ArtifactError: something else is there; ``where`` names the file.
    """
    try:
        own: Mapping[str, Any] = value["preprocessing"]
        parts: dict[str, Any] = {
            name: tuple(part) if isinstance(part, list) else part for name, part in own.items()
        }
        return DataRecord(tuple(str(name) for name in value["classes"]), Preprocessing(**parts))
    except (KeyError, TypeError, ValueError, ModelError) as error:
        raise ArtifactError(
            f"{where}: no record of classes and preprocessing; {type(error).__name__}: {error}. Put back "
            "what training wrote, or train again."
        ) from error


def check_data_record(trained: DataRecord, images: ImageData, where: str) -> None:
    """Whether a network is given what it was trained on.

    Args:
        where: the checkpoint, for the message.

    Raises:
        ArtifactError: classes or preprocessing differ; the message shows both where they do.
    """
    found = list(data_differences(trained, data_record(images), now="here"))
    if found:
        listed = "\n".join(f"  {line}" for line in found)
        raise ArtifactError(
            f"{where}: trained on other data than the recipe beside it opens here, so answers would be wrong "
            f"or bear the wrong names:\n{listed}\n"
            "Put the section data and the folders of classes back as they were, or train again."
        )


def data_differences(
    trained: DataRecord, other: DataRecord, *, now: str, only: tuple[str, ...] | None = None
) -> Iterator[str]:
    """Where two records differ, a line each with both values.

    Args:
        now: what the other record is called: "here".
        only: fields of the preprocessing that matter; all if left out.
    """
    if trained.classes != other.classes:
        yield f"classes: {_summary(trained, other)} in training, {_summary(other, trained)} {now}"
    for name in only or [item.name for item in fields(Preprocessing)]:
        own, its = (getattr(each.preprocessing, name) for each in (trained, other))
        if own != its:
            yield f"{name}: {own} in training, {its} {now}"


def _summary(record: DataRecord, other: DataRecord) -> str:
    """The number of classes, and a few names from the first that differs on."""
    pairs = zip(record.classes, other.classes, strict=False)
    shorter = min(len(record.classes), len(other.classes))
    first = next((index for index, (own, its) in enumerate(pairs) if own != its), shorter)
    names = record.classes[first : first + _SHOWN]
    more = ", ..." if first + _SHOWN < len(record.classes) else ""
    place = f" from index {first} on" if first and names else ""
    return f"{len(record.classes)}{place}" + (f" ({', '.join(names)}{more})" if names else "")
