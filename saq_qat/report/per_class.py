"""Accuracy of each class, and which classes are taken for which."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saq_qat.report.predictions import Predictions

__all__ = ["ClassAccuracy", "Confusion", "accuracy_of_classes", "confusion_matrix", "largest_confusions"]


@dataclass(frozen=True)
class ClassAccuracy:
    """One class.

    Attributes:
        images: of this class, that were classified.
        network, deployed: percent of them that the network and its deploy view name rightly; None without
            an image, or without a deploy view.
    """

    name: str
    images: int
    network: float | None
    deployed: float | None


@dataclass(frozen=True)
class Confusion:
    """Images of the class ``label`` that are taken for ``answer``, by the network and by its deploy view.

    ``deployed`` is None without a deploy view.
    """

    label: str
    answer: str
    network: int
    deployed: int | None


def confusion_matrix(
    labels: NDArray[np.int64], answers: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Images of each class (row) by the class they are taken for (column), int64 [classes, classes]."""
    counts = np.bincount(labels * classes + answers, minlength=classes * classes)
    return counts.astype(np.int64).reshape(classes, classes)


def accuracy_of_classes(predictions: Predictions, classes: Sequence[str]) -> tuple[ClassAccuracy, ...]:
    """One for each class, in their order."""
    images = np.bincount(predictions.labels, minlength=len(classes)).tolist()
    network = _right(predictions.labels, predictions.network, len(classes))
    deployed = None
    if predictions.deployed is not None:
        deployed = _right(predictions.labels, predictions.deployed, len(classes))
    return tuple(
        ClassAccuracy(
            name,
            images[index],
            _percent(network[index], images[index]),
            None if deployed is None else _percent(deployed[index], images[index]),
        )
        for index, name in enumerate(classes)
    )


def largest_confusions(predictions: Predictions, classes: Sequence[str], most: int) -> tuple[Confusion, ...]:
    """The ``most`` wrong answers that are commonest, by the deploy view where there is one.

    Equally common ones stand in the order of label and answer.
    """
    network = _wrong(predictions.labels, predictions.network, len(classes))
    deployed = None
    if predictions.deployed is not None:
        deployed = _wrong(predictions.labels, predictions.deployed, len(classes))
    leading = network if deployed is None else deployed
    order = np.argsort(-leading, axis=None, kind="stable")[:most]
    pairs = [divmod(flat, len(classes)) for flat in order.tolist()]
    return tuple(
        Confusion(
            classes[label],
            classes[answer],
            int(network[label, answer]),
            None if deployed is None else int(deployed[label, answer]),
        )
        for label, answer in pairs
        if leading[label, answer]
    )


def _right(labels: NDArray[np.int64], answers: NDArray[np.int64], classes: int) -> list[int]:
    counts: list[int] = np.bincount(labels[labels == answers], minlength=classes).tolist()
    return counts


def _wrong(labels: NDArray[np.int64], answers: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    matrix = confusion_matrix(labels, answers, classes)
    np.fill_diagonal(matrix, 0)
    return matrix


def _percent(right: int, images: int) -> float | None:
    return 100.0 * right / images if images else None
