"""Finding the images of a folder: root/train/<class>/* and root/val/<class>/*."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saq_qat.errors import DataError

__all__ = ["FolderSplit", "find_images"]

# Of the formats that the runtime opens, so that what is trained on can be served.
_EXTENSIONS = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
_LAYOUT = (
    "Expected layout: {root}/train/<class>/*.jpg and {root}/val/<class>/*.jpg, with the same classes in both."
)
_SORT_FIRST = (
    " Its images lie side by side, as in ImageNet's archive of validation images: move each into the folder "
    "of its class. The numbers of ILSVRC2012_validation_ground_truth.txt are not places among the sorted "
    "folders: meta.mat of the same kit has their names (n01440764, ...)."
)


@dataclass(frozen=True)
class FolderSplit:
    """Files of a split in sorted order, and their labels int64 [N]."""

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]


def find_images(root: Path, val_folder: str = "val") -> tuple[FolderSplit, FolderSplit, tuple[str, ...]]:
    """The training split, the validation split and the classes: the sorted folder names of root/train.

    Only names are read, not images; names that start with a dot are passed over. Raises DataError for
    missing folders, a class without images, a class of val alone, files of other kinds, folders that cannot
    be listed, or a link that leads back to a folder.
    """
    try:
        return _find_images(root, val_folder)
    except OSError as error:
        raise DataError(
            f"'{error.filename}' cannot be read: {error.strerror}. Check its permissions."
        ) from error


def _find_images(root: Path, val_folder: str) -> tuple[FolderSplit, FolderSplit, tuple[str, ...]]:
    classes = _class_names(root, "train")
    val_classes = _class_names(root, val_folder)
    unknown = sorted(set(val_classes) - set(classes))
    if unknown:
        raise DataError(
            f"Every class of val must be in train; '{root / val_folder}' alone has {', '.join(unknown)}. "
            f"{_LAYOUT.format(root=root)}"
        )
    return (
        _split(root / "train", classes, classes),
        _split(root / val_folder, val_classes, classes),
        tuple(classes),
    )


def _class_names(root: Path, split: str) -> list[str]:
    folder = root / split
    if not folder.is_dir():
        other = " Or set data.val_folder=test." if split == "val" and (root / "test").is_dir() else ""
        raise DataError(
            f"data.root has no folder '{folder}' (from {Path.cwd()}). {_LAYOUT.format(root=root)}{other}"
        )
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if not names:
        flat = any(Path(entry.name).suffix.lower() in _EXTENSIONS for entry in entries)
        raise DataError(
            f"'{folder}' has no class folders. {_LAYOUT.format(root=root)}{_SORT_FIRST if flat else ''}"
        )
    return names


def _split(folder: Path, present: list[str], classes: list[str]) -> FolderSplit:
    paths: list[Path] = []
    labels: list[int] = []
    for name in present:
        found = _files(folder / name)
        if not found:
            raise DataError(
                f"Every class folder must hold images; '{folder / name}' has none. Fill or remove it."
            )
        paths += found
        labels += [classes.index(name)] * len(found)
    return FolderSplit(tuple(paths), np.asarray(labels, np.int64))


def _files(folder: Path) -> list[Path]:
    files: list[Path] = []
    searched: set[tuple[int, int]] = set()
    for parent, _, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in searched:
            raise DataError(
                f"'{parent}' is a folder that was searched already, to which a link leads back. Its images "
                "would count twice, or without an end; remove the link."
            )
        searched.add((status.st_dev, status.st_ino))
        files += [Path(parent) / name for name in names if not name.startswith(".")]
    for path in files:
        if path.suffix.lower() not in _EXTENSIONS:
            raise DataError(
                f"Class folders must hold images only ({' '.join(_EXTENSIONS)}); found '{path}'. "
                "Move it elsewhere."
            )
    return sorted(files)


def _unreadable(error: OSError) -> None:
    """os.walk would pass over a folder it cannot list."""
    raise error
