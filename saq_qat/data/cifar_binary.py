"""CIFAR-10 and CIFAR-100 in the binary form of their official page, in which nothing is unpickled.

A record of CIFAR-10 is a byte with the label and 3072 bytes of pixels: 1024 of red, of green, of blue, each
row by row. One of CIFAR-100 has two bytes before the pixels, the coarse label and the fine one. Images come
in the order of the files, those of data_batch_1 first, as in the python archive.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from saq_qat.data.transforms import Pixels
from saq_qat.errors import DataError
from saq_qat_runtime.bundle.regular_file import read_regular

__all__ = ["BinaryForm", "CifarSplit", "binary_form", "find_binary", "read_binary"]

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True)
class BinaryForm:
    """Which files there are, and what their records begin with.

    Attributes:
        folder: of the extracted archive.
        label_byte: which byte of a record is the label.
        names: the file of class names, one a line, in the order of the labels.
    """

    folder: str
    train: tuple[str, ...]
    val: str
    label_bytes: int
    label_byte: int
    names: str
    classes: int


@dataclass(frozen=True)
class CifarSplit:
    """Pixels uint8 [N, 32, 32, 3] and labels int64 [N]."""

    pixels: Pixels
    labels: NDArray[np.int64]


_CIFAR10 = BinaryForm(
    "cifar-10-batches-bin",
    tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test_batch.bin",
    label_bytes=1,
    label_byte=0,
    names="batches.meta.txt",
    classes=10,
)
_COARSE = BinaryForm(
    "cifar-100-binary",
    ("train.bin",),
    "test.bin",
    label_bytes=2,
    label_byte=0,
    names="coarse_label_names.txt",
    classes=20,
)
_FINE = BinaryForm(
    "cifar-100-binary",
    ("train.bin",),
    "test.bin",
    label_bytes=2,
    label_byte=1,
    names="fine_label_names.txt",
    classes=100,
)


def binary_form(kind: Literal["cifar10", "cifar100"], labels: Literal["fine", "coarse"]) -> BinaryForm:
    """The form of a data set; ``labels`` matter to CIFAR-100 alone."""
    if kind == "cifar10":
        return _CIFAR10
    return _COARSE if labels == "coarse" else _FINE


def find_binary(root: Path, form: BinaryForm) -> Path | None:
    """The folder with any of the files: in ``root``, or ``root`` itself; None if there is neither."""
    candidates = (root / form.folder, root)
    files = (*form.train, form.val)
    return next((folder for folder in candidates if any((folder / name).is_file() for name in files)), None)


def read_binary(folder: Path, form: BinaryForm) -> tuple[CifarSplit, CifarSplit, tuple[str, ...]]:
    """Training split, validation split (the official test images) and class names in the order of labels.

    Raises:
        DataError: a file is missing, cut short within a record, or has a label that no class has.
    """
    names = _names(folder / form.names, form)
    train = _stacked([_read(folder / name, form) for name in form.train])
    return train, _read(folder / form.val, form), names


def _names(path: Path, form: BinaryForm) -> tuple[str, ...]:
    text = _bytes(path).decode("utf-8", errors="replace")
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if "\ufffd" in text:
        raise DataError(f"'{path}' is no text in UTF-8, so it is damaged. Extract the archive again.")
    if len(names) != form.classes:
        raise DataError(
            f"'{path}' must name {form.classes} classes, one a line; it names {len(names)}. "
            "Extract the archive again."
        )
    return names


def _read(path: Path, form: BinaryForm) -> CifarSplit:
    content = np.frombuffer(_bytes(path), np.uint8)
    size = form.label_bytes + _PIXELS
    if len(content) == 0 or len(content) % size:
        raise DataError(
            f"'{path}' must consist of records of {size} bytes; it has {len(content)} bytes, so it was cut "
            "short or is another file. Extract the archive again."
        )
    records = content.reshape(-1, size)
    labels = records[:, form.label_byte].astype(np.int64)
    if labels.max() >= form.classes:
        raise DataError(
            f"'{path}': labels must be below {form.classes}; there is a {labels.max()}. Is it of another "
            "data set?"
        )
    planes = records[:, form.label_bytes :].reshape(-1, 3, _SIDE, _SIDE)
    return CifarSplit(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def _bytes(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}. Extract the archive again.") from error


def _stacked(splits: Sequence[CifarSplit]) -> CifarSplit:
    return CifarSplit(
        np.concatenate([split.pixels for split in splits]), np.concatenate([split.labels for split in splits])
    )
