"""The confusion matrix as a picture, and the classes that deployment cost most."""

from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from saq_qat.report.per_class import (
    ClassAccuracy,
    accuracy_of_classes,
    confusion_matrix,
    largest_confusions,
)
from saq_qat.report.predictions import Predictions
from saq_qat.report.tables import Table
from saq_qat_runtime.report.text import NOT_MEASURED, percent

__all__ = ["Cell", "Matrix", "change_of", "class_table", "confusion_table", "matrix"]

LARGEST_MATRIX = 20  # classes; more are told by their commonest confusions
_CONFUSIONS = 20
_WIDTH, _NAME = 340.0, 77.0  # of the picture, and of the widest name in it


@dataclass(frozen=True)
class Cell:
    """Images of one class with one answer; ``share`` of the class, 0 to 1."""

    x: float
    y: float
    count: int
    share: float
    right: bool
    title: str


@dataclass(frozen=True)
class Matrix:
    """A picture: square cells of ``size``, names of classes before rows, and below ``bottom`` under columns.

    ``names``: the middle of each row or column, the name as far as there is room, and the whole name.
    """

    width: float
    height: float
    size: float
    start: float
    bottom: float
    cells: tuple[Cell, ...]
    names: tuple[tuple[float, str, str], ...]
    form: str


def matrix(found: Predictions, names: Sequence[str], form: str) -> Matrix | None:
    """What ships, or else the network itself, as a confusion matrix; None for too many classes.

    Args:
        form: of the network before deployment, in words.
    """
    if len(names) > LARGEST_MATRIX:
        return None
    answers = found.network if found.deployed is None else found.deployed
    counts = confusion_matrix(found.labels, answers, len(names)).tolist()
    short = [_fitting(name) for name in names]
    start = 8 + max(map(_width, short))
    size = (_WIDTH - start) / len(names)
    cells = [
        _cell(start + column * size, row * size, count, own, names[row], names[column])
        for row, own in enumerate(counts)
        for column, count in enumerate(own)
        if count
    ]
    centres = tuple(
        (round((index + 0.5) * size, 2), shown, name)
        for index, (shown, name) in enumerate(zip(short, names, strict=True))
    )
    judged = f"{form} network" if found.deployed is None else "deploy view"
    below = round(_WIDTH - start, 2)
    return Matrix(_WIDTH, _WIDTH, round(size, 2), start, below, tuple(cells), centres, judged)


def _fitting(name: str) -> str:
    """A name, cut where there is no room for it."""
    if _width(name) <= _NAME:
        return name
    length = next(n for n in range(len(name), -1, -1) if _width(f"{name[:n]}…") <= _NAME)
    return f"{name[:length]}…"


def _width(text: str) -> float:
    """At least the width of a text in a picture, whatever common font a browser takes."""
    return sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    if letter in "MWmw@%" or east_asian_width(letter) in "WF":
        return 12.5
    return 7.4 if letter.islower() or letter.isdigit() or letter in " -_.,:;|!'" else 10.0


def _cell(x: float, y: float, count: int, row: Sequence[int], truth: str, answer: str) -> Cell:
    title = f"{count} of {sum(row)} images of {truth}: {answer}"
    return Cell(round(x, 2), round(y, 2), count, round(count / sum(row), 3), truth == answer, title)


def change_of(row: ClassAccuracy) -> float:
    """Points of top-1 that deployment gave; negative if lost, 0 where there is nothing to compare."""
    return 0.0 if row.network is None or row.deployed is None else row.deployed - row.network


def class_table(found: Predictions, names: Sequence[str], most: int, form: str) -> Table:
    """Accuracy of classes: those that deployment cost most first, then the least accurate.

    Args:
        form: of the network before deployment, in words.
    """
    rows = [row for row in accuracy_of_classes(found, names) if row.images]
    rows.sort(key=lambda row: (change_of(row), row.network or 0.0))
    shown = tuple(
        (
            row.name,
            f"{row.images:,}",
            percent(row.network),
            percent(row.deployed),
            NOT_MEASURED if row.deployed is None else f"{change_of(row):+.2f}",
        )
        for row in rows[:most]
    )
    bad = tuple(index for index, row in enumerate(rows[:most]) if change_of(row) < 0)
    note = f"{most} of {len(rows)} classes; predictions.csv has all." if len(rows) > most else ""
    columns = ("class", "images", f"{form} %", "deploy view %", "change")
    return Table(columns, shown, (0,), bad, note)


def confusion_table(found: Predictions, names: Sequence[str], form: str) -> Table | None:
    """The commonest wrong answers; None without any. ``form`` as for ``class_table``."""
    rows = tuple(
        (
            each.label,
            each.answer,
            f"{each.network:,}",
            NOT_MEASURED if each.deployed is None else f"{each.deployed:,}",
        )
        for each in largest_confusions(found, names, _CONFUSIONS)
    )
    columns = ("class", "taken for", f"{form} images", "deploy view images")
    return Table(columns, rows, (0, 1)) if rows else None
