"""Images in Parquet files as the Hugging Face hub keeps them: encoded bytes beside a whole-number label."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat.data.transforms import EncodedImage
from saq_qat.errors import DataError, SetupError
from saq_qat.recipe.schema import Parquet

__all__ = ["ParquetSplit", "read_parquet"]

_IMAGES = ("image", "img")
_LABEL = "label"


@dataclass(frozen=True)
class ParquetSplit:
    """Encoded images in the order of files and rows, and their labels int64 [N]."""

    images: tuple[EncodedImage, ...]
    labels: NDArray[np.int64]


def read_parquet(data: Parquet) -> tuple[ParquetSplit, ParquetSplit, tuple[str, ...]]:
    """Training split, validation split and classes.

    The classes are the names that the files' own description has for the labels, in their order; numbers
    where it has none. Encoded images stay in memory, as large as the files are.

    Raises:
        DataError: a split has no file, a column is missing or of another type, or a label is no class.
        SetupError: pyarrow is missing.
    """
    root = Path(data.root)
    train_files = _files(root, "train")
    val_files = _val_files(root, data.val_split)
    (train, names), (val, val_names) = (_read(files, data) for files in (train_files, val_files))
    if names is not None and val_names is not None:
        _check_same(names, val_names, val_files[0])
    largest = int(max(train.labels.max(), val.labels.max()))
    classes = names or tuple(str(label) for label in range(largest + 1))
    smallest = int(min(train.labels.min(), val.labels.min()))
    if smallest < 0 or largest >= len(classes):
        raise DataError(
            f"'{root}': labels must be from 0 to {len(classes) - 1}, as its classes are; found {smallest} to "
            f"{largest}. A split without labels has -1: set data.val_split to one that has them."
        )
    return train, val, classes


def _val_files(root: Path, split: str | None) -> list[Path]:
    if split is not None:
        return _files(root, split)
    return _found(root, "validation") or _files(root, "test")


def _files(root: Path, split: str) -> list[Path]:
    found = _found(root, split)
    if not found:
        raise DataError(
            f"data.root has no Parquet file of the split {split!r}: expected {split}-*.parquet or "
            f"{split}/*.parquet in '{root}' or below (from {Path.cwd()}). Splits that are there: "
            f"{', '.join(sorted({_split_of(path) for path in root.rglob('*.parquet')})) or 'none'}."
        )
    homes = sorted({str(_home(path).relative_to(root)) for path in found})
    if len(homes) > 1:
        raise DataError(
            f"'{root}' holds the split {split!r} in several folders, which are several data sets or several "
            f"forms of one: {', '.join(homes)}. Name one of them as data.root."
        )
    return found


def _home(path: Path) -> Path:
    """The folder of a data set: that of the file, or the one above a folder named after the split."""
    return path.parent.parent if _split_of(path) == path.parent.name else path.parent


def _found(root: Path, split: str) -> list[Path]:
    return sorted(path for path in root.rglob("*.parquet") if _split_of(path) == split)


def _split_of(path: Path) -> str:
    """train-00000-of-00002.parquet and train/0000.parquet are of the split train."""
    name, dash, _ = path.stem.partition("-")
    return name if dash or not name.isdigit() else path.parent.name


def _read(files: Sequence[Path], data: Parquet) -> tuple[ParquetSplit, tuple[str, ...] | None]:
    images: list[EncodedImage] = []
    labels: list[NDArray[np.int64]] = []
    names: tuple[str, ...] | None = None
    for path in files:
        file = _opened(path)
        schema = file.schema_arrow
        image, label = _image_column(schema, path, data), _label_column(schema, path, data)
        table = _table(file, [image, label], path)
        own = _names(schema, label)
        if names is not None and own is not None:
            _check_same(names, own, path)
        names = names or own
        images += _encoded(table.column(image), path)
        labels.append(table.column(label).to_numpy().astype(np.int64))
    if not images:
        raise DataError(f"'{files[0]}' has no rows, and its split needs images. Copy it again.")
    return ParquetSplit(tuple(images), np.concatenate(labels)), names


def _check_same(names: tuple[str, ...], own: tuple[str, ...], path: Path) -> None:
    """Labels are numbers: files that name them otherwise would be judged by each other's classes."""
    if names != own:
        pairs = enumerate(zip(names, own, strict=False))
        other = (f"{a} and {b} for label {label}" for label, (a, b) in pairs if a != b)
        found = next(other, f"{len(names)} and {len(own)} classes")
        raise DataError(
            f"'{path}' names the labels otherwise than the training files before it: {found}. Files of one "
            "data set have one list of classes."
        )


def _table(file: Any, columns: list[str], path: Path) -> Any:
    try:
        return file.read(columns=columns)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise SetupError("Parquet files are read by pyarrow. pip install 'saq-qat[parquet]'") from error
    return pyarrow.parquet


def _opened(path: Path) -> Any:
    parquet = _pyarrow()
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"'{path}' cannot be read as Parquet: {error}. Copy it again.")


def _image_column(schema: Any, path: Path, data: Parquet) -> str:
    if data.image_column is not None:
        return _present(schema, data.image_column, path, "image_column")
    found = [name for name in _IMAGES if name in schema.names]
    if len(found) != 1:
        raise DataError(
            f"'{path}': images are in a column named {' or '.join(_IMAGES)}; its columns are "
            f"{', '.join(schema.names)}. Set data.image_column."
        )
    return found[0]


def _label_column(schema: Any, path: Path, data: Parquet) -> str:
    name = data.label_column or _LABEL
    if data.label_column is None and name not in schema.names:
        raise DataError(
            f"'{path}': labels are in a column named {_LABEL}; its columns are {', '.join(schema.names)}. "
            "Set data.label_column (CIFAR-100 has fine_label and coarse_label)."
        )
    _present(schema, name, path, "label_column")
    kind = str(schema.field(name).type)
    if not kind.startswith(("int", "uint")):
        raise DataError(f"'{path}': labels must be whole numbers; the column {name} holds {kind}.")
    return name


def _present(schema: Any, name: str, path: Path, key: str) -> str:
    if name not in schema.names:
        raise DataError(
            f"data.{key} is {name}, and '{path}' has the columns {', '.join(schema.names)}. Name one of them."
        )
    return name


def _encoded(column: Any, path: Path) -> Iterator[EncodedImage]:
    """Of a column of bytes, or of records that have a field ``bytes``."""
    for row, value in enumerate(column.to_pylist()):
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(
                f"'{path}', row {row}: an image must be the bytes of its file; it is a "
                f"{type(content).__name__}. Files that only name images elsewhere are not read."
            )
        yield EncodedImage(f"{path}, row {row}", content)


def _names(schema: Any, label: str) -> tuple[str, ...] | None:
    """The names of a ClassLabel, from the description that the datasets library leaves in the file."""
    description = (schema.metadata or {}).get(b"huggingface")
    if description is None:
        return None
    try:
        features = json.loads(description)["info"]["features"]
        names = features[label].get("names")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return tuple(str(name) for name in names) if names else None
