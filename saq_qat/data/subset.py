"""Fixed subsets that keep the proportions of the classes, whatever the order of the files."""

import numpy as np
from numpy.typing import NDArray

from saq_qat.data.counter import Stream, shuffled
from saq_qat.errors import DataError

__all__ = ["held_out", "limited", "stratified_order"]


def stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A shuffle, int64 [N], whose every prefix has the class proportions of `labels` as nearly as it can."""
    shuffle = shuffled(Stream.SUBSET, seed, 0, len(labels))
    share = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffle[labels[shuffle] == label]
        share[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffle[np.argsort(share[shuffle], kind="stable")]


def limited(labels: NDArray[np.int64], limit: int | None, seed: int, key: str) -> NDArray[np.int64]:
    """Ascending indices of the images to use: all, or a stratified sample of `limit`.

    Raises DataError if there are fewer images than the recipe's `key` asks for.
    """
    if limit is None:
        return np.arange(len(labels))
    if limit > len(labels):
        raise DataError(
            f"data.{key} is {limit}, but there are only {len(labels)} images. Lower it or set it to null."
        )
    return np.sort(stratified_order(labels, seed)[:limit])


def held_out(labels: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ascending indices of the images to train on, and of ``count`` to judge on, stratified.

    The choice is the same for every seed, so that seeds can be compared. Raises DataError if none would be
    left to train on.
    """
    if count >= len(labels):
        raise DataError(
            f"data.held_out is {count}, and there are {len(labels)} training images, so none would be left "
            "to train on. Lower it or set it to null."
        )
    order = stratified_order(labels, 0)
    return np.sort(order[count:]), np.sort(order[:count])
