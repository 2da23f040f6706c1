"""predictions.csv: what a network and its deploy view answer to each validation image.

One line an image: ``image,label,fake_quant,deployed``; the last three are indices of classes, and
``deployed`` is empty where there is no deploy view. UTF-8 as RFC 4180 has it, lines ended by a line feed.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saq_qat.errors import ArtifactError
from saq_qat.train.files import make_folder, write_whole
from saq_qat_runtime.bundle.files import sha256 as sha256_of
from saq_qat_runtime.bundle.regular_file import read_regular
from saq_qat_runtime.bundle.result_files import short_digest

__all__ = ["Predictions", "read_predictions", "write_predictions"]

_HEADER = ["image", "label", "fake_quant", "deployed"]
_FIX = "Run 'saq-qat eval' again."


@dataclass(frozen=True)
class Predictions:
    """Answers to the validation images, in their order.

    Attributes:
        images: the path of each below the folder of its split, or its index where the data has no files.
        labels: index of the true class, int64 [N].
        network: index of the class the network answers, int64 [N]; of a float network in its float form.
        deployed: of its deploy view, int64 [N]; None if it has none.
    """

    images: tuple[str, ...]
    labels: NDArray[np.int64]
    network: NDArray[np.int64]
    deployed: NDArray[np.int64] | None

    def __post_init__(self) -> None:
        columns = [self.labels, self.network, *([] if self.deployed is None else [self.deployed])]
        if any(column.shape != (len(self.images),) for column in columns):
            shapes = ", ".join(str(column.shape) for column in columns)
            raise ValueError(f"one label and one answer for each of {len(self.images)} images; got {shapes}")


def write_predictions(predictions: Predictions, path: Path) -> str:
    """Write ``path``, whose folder is made; the SHA-256 of what was written, in hexadecimal digits.

    Raises:
        SaqError: the disk is full, or the folder cannot be written; an older file is untouched.
    """
    text = io.StringIO()
    # Of its own accord, the writer quotes no carriage return, at which readers end a line.
    has_return = any("\r" in name for name in predictions.images)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL)
    writer.writerow(_HEADER)
    deployed: Iterable[int | str] = [""] * len(predictions.images)
    if predictions.deployed is not None:
        deployed = predictions.deployed.tolist()
    columns = predictions.labels.tolist(), predictions.network.tolist(), deployed
    writer.writerows(zip(predictions.images, *columns, strict=True))
    # Names of files need not be UTF-8; what is not comes back from reading as it was.
    content = text.getvalue().encode("utf-8", "surrogateescape")
    make_folder(path.parent)
    write_whole(path, content)
    return sha256_of(content)


def read_predictions(path: Path, sha256: str) -> Predictions:
    """Read ``path``, which must be the file with this SHA-256.

    Raises:
        ArtifactError: it is missing, changed since it was written, or damaged.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. {_FIX}") from error
    found = sha256_of(content)
    if found != sha256:
        raise ArtifactError(
            f"{path} is not the file that its eval.json is about: its SHA-256 is {short_digest(found)}, that "
            f"of the evaluation is {short_digest(sha256)}. {_FIX}"
        )
    try:
        return _parsed(content.decode("utf-8", "surrogateescape"))
    except (ValueError, OverflowError, csv.Error) as error:
        raise ArtifactError(f"{path} is damaged: {error}. {_FIX}") from error


def _parsed(text: str) -> Predictions:
    """Raises ValueError where a line is not one image, or the last column is neither whole nor empty."""
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True) if text else [[]]
    if header != _HEADER:
        raise ValueError(f"its first line must be {','.join(_HEADER)}; got {','.join(header)}")
    wrong = next((number for number, row in enumerate(rows, 2) if len(row) != len(_HEADER)), None)
    if wrong is not None:
        raise ValueError(f"row {wrong} has not {len(_HEADER)} values")
    has_deployed = any(row[3] for row in rows)
    return Predictions(
        images=tuple(row[0] for row in rows),
        labels=_indices(row[1] for row in rows),
        network=_indices(row[2] for row in rows),
        deployed=_indices(row[3] for row in rows) if has_deployed else None,
    )


def _indices(values: Iterable[str]) -> NDArray[np.int64]:
    return np.array([int(value) for value in values], np.int64)
