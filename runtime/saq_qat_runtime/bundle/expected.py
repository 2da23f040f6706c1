"""expected.csv: what the fake-quant network answers to validation images, image by image.

One line an image, `image,label,prediction`: its path below the folder of validation images, with forward
slashes, and two indices of labels. UTF-8 as RFC 4180 has it, lines ended by a line feed. Names of files that
are no UTF-8 come back from reading as they were.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.files import read_verified
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import ModelError

__all__ = ["EXPECTED_FILE", "Expected", "read_expected"]

EXPECTED_FILE = "expected.csv"
_HEADER = ["image", "label", "prediction"]
_LARGEST_DIGITS = 9  # more than any number of labels has
_FIX = "Export the bundle again."


@dataclass(frozen=True)
class Expected:
    """Images by their paths, the true label of each, and the label that the fake-quant network gives it."""

    images: tuple[str, ...]
    labels: tuple[int, ...]
    predictions: tuple[int, ...]

    def __post_init__(self) -> None:
        counts = {len(self.images), len(self.labels), len(self.predictions)}
        require(
            len(counts) == 1, f"{EXPECTED_FILE} needs one label and one prediction for each image. {_FIX}"
        )
        repeated = len(self.images) - len(set(self.images))
        require(not repeated, f"{EXPECTED_FILE} names {repeated} images twice. {_FIX}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def top1(self) -> float:
        """Percent of images that the fake-quant network answers as they are labelled; there must be one."""
        right = sum(map(int.__eq__, self.labels, self.predictions))
        return 100.0 * right / len(self)

    def to_csv(self) -> bytes:
        """The file, the same bytes for the same answers."""
        rows = zip(map(_cell, self.images), self.labels, self.predictions, strict=True)
        lines = [",".join(_HEADER), *(f"{image},{label},{answer}" for image, label, answer in rows)]
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    @classmethod
    def from_csv(cls, content: bytes, labels: int, where: str = EXPECTED_FILE) -> Self:
        """Parse strictly; raises ModelError that names `where`, the row and what is wrong with it.

        labels: how many there are.
        """
        text = content.decode("utf-8", "surrogateescape")
        try:
            header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True) if text else [[]]
        except csv.Error as error:
            raise ModelError(f"{where} is no CSV file: {error}. {_FIX}") from error
        found = ",".join(header)
        require(header == _HEADER, f"{where} must begin with {','.join(_HEADER)}, got {found[:60]!r}. {_FIX}")
        for number, row in enumerate(rows, 2):
            _check_row(row, labels, f"{where}, row {number}")
        return cls(
            tuple(row[0] for row in rows),
            tuple(int(row[1]) for row in rows),
            tuple(int(row[2]) for row in rows),
        )


def _cell(text: str) -> str:
    """Quoted where it must be; Python's writer leaves a carriage return bare if lines end otherwise."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _check_row(row: list[str], labels: int, where: str) -> None:
    require(len(row) == len(_HEADER), f"{where}: needs {len(_HEADER)} values, has {len(row)}. {_FIX}")
    image, *indices = row
    path = PurePosixPath(image)
    inside = image and not path.is_absolute() and ".." not in path.parts and "\0" not in image
    require(bool(inside), f"{where}: {image!r} must be a path below the folder of images. {_FIX}")
    for index in indices:
        legal = (
            index.isascii() and index.isdecimal() and len(index) <= _LARGEST_DIGITS and int(index) < labels
        )
        require(legal, f"{where}: {index!r} must be the index of one of {labels} labels. {_FIX}")


def read_expected(folder: Path, manifest: Manifest) -> Expected:
    """The answers that ship in the bundle; raises ModelError if the file is missing or damaged."""
    file = manifest.expected
    content = read_verified(folder, file.name, file.sha256, file.bytes)
    return Expected.from_csv(content, len(manifest.labels), str(folder / file.name))
