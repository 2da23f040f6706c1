"""An engine's answers to the images of expected.csv, beside those of the fake-quant network."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.expected import Expected
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import DataError, InputError
from saq_qat_runtime.preprocess import preprocess
from saq_qat_runtime.verify.record import Answers, Flip

__all__ = ["Classifier", "OnImages", "compare_answers", "find_images"]

Classifier = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Float32 images (N, channels, height, width) to logits (N, labels)."""

OnImages = Callable[[int], None]
"""Told how many images were classified more."""

_MISSING_SHOWN = 3
_FLIPS_LISTED = 50
_DECODERS = 8


def find_images(expected: Expected, folder: Path) -> list[Path]:
    """The file of every image, in order; looked for before anything is computed.

    Raises DataError for files that are missing, with the folder that may have been meant.
    """
    if not len(expected):
        raise DataError(
            "expected.csv names no image, so there is nothing to compare. Export the bundle again."
        )
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"--data {folder} {found}. Name the folder of the validation images.")
    files = [folder / image for image in expected.images]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(_missing(expected, folder, missing))
    return files


def _missing(expected: Expected, folder: Path, missing: list[Path]) -> str:
    shown = ", ".join(map(str, missing[:_MISSING_SHOWN]))
    near = [name for name in ("val", "test", "train") if (folder / name / expected.images[0]).is_file()]
    fix = (
        f"Name the folder of the split: --data {folder / near[0]}"
        if near
        else "--data is the folder below which expected.csv names its images; where the network was trained, "
        "saq-qat export RUN --images FOLDER writes them"
    )
    return f"{len(missing)} of {len(expected)} images of expected.csv are not there: {shown}. {fix}."


def compare_answers(
    classify: Classifier,
    expected: Expected,
    files: list[Path],
    settings: Preprocessing,
    *,
    batch: int,
    on_images: OnImages = lambda _: None,
) -> Answers:
    """Classify every image, and count where the engine parts from label and fake-quant network.

    Raises DataError for a file that is no image, naming it; and what `classify` raises.
    """
    engine: list[int] = []
    for images in _batches(files, settings, batch):
        engine += classify(images).argmax(axis=1).tolist()
        on_images(len(images))
    rows = list(zip(expected.images, expected.labels, expected.predictions, engine, strict=True))
    flips = [Flip(*row) for row in rows if row[2] != row[3]]
    right = sum(label == answer for _, label, _, answer in rows)
    return Answers(
        len(rows), expected.top1, 100.0 * right / len(rows), len(flips), tuple(flips[:_FLIPS_LISTED])
    )


def _batches(files: list[Path], settings: Preprocessing, size: int) -> Iterator[NDArray[np.float32]]:
    """Prepared images (N, channels, height, width); Pillow decodes several at once."""

    def prepare(file: Path) -> NDArray[np.float32]:
        try:
            return preprocess(file, settings)
        except InputError as error:
            raise DataError(f"{file} is refused. {error}") from error

    with ThreadPoolExecutor(min(_DECODERS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), size):
            yield np.concatenate(list(pool.map(prepare, files[start : start + size])))
