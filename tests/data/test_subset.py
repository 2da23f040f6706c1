"""Subsets: proportional at every size, fixed, and refused when they ask for more than there is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.data.subset import held_out, limited, stratified_order
from saq_qat.errors import DataError


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=6), seed=st.integers(0, 2**40))
def test_every_prefix_keeps_the_proportions(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = stratified_order(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    for size in range(1, len(labels) + 1):
        taken = np.bincount(labels[order[:size]], minlength=len(counts))
        expected = size * np.array(counts) / len(labels)
        assert np.abs(taken - expected).max() <= max(1.0, len(counts) / 2)


def test_a_limit_takes_ascending_indices_of_every_class_from_sorted_files() -> None:
    labels = np.repeat(np.arange(10), 100)
    chosen = limited(labels, 50, 0, "train_limit")
    assert np.array_equal(chosen, np.sort(chosen))
    assert np.bincount(labels[chosen]).tolist() == [5] * 10
    assert np.array_equal(chosen, limited(labels, 50, 0, "train_limit"))
    assert not np.array_equal(chosen, limited(labels, 50, 1, "train_limit"))


def test_no_limit_takes_everything() -> None:
    assert limited(np.zeros(5, np.int64), None, 0, "train_limit").tolist() == [0, 1, 2, 3, 4]


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.val_limit is 6.*only 5"):
        limited(np.zeros(5, np.int64), 6, 0, "val_limit")


def test_what_is_held_out_is_stratified_and_never_trained_on() -> None:
    labels = np.repeat(np.arange(10), 100)
    kept, judged = held_out(labels, 50)
    assert sorted([*kept, *judged]) == list(range(1000))
    assert np.bincount(labels[judged]).tolist() == [5] * 10


def test_something_is_left_to_train_on() -> None:
    with pytest.raises(DataError, match=r"data\.held_out is 5"):
        held_out(np.zeros(5, np.int64), 5)
