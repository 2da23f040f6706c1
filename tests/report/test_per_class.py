import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as independent_matrix

from saq_qat.report.per_class import accuracy_of_classes, confusion_matrix, largest_confusions
from saq_qat.report.predictions import Predictions

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)
NAMES = ("ant", "bee", "cat", "dog", "eel")


def indices(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


@given(PAIRS)
def test_the_matrix_counts_each_image_once(pairs: list[tuple[int, int]]) -> None:
    labels, answers = (indices(*column) for column in zip(*pairs, strict=True))
    expected = independent_matrix(labels, answers, labels=range(5))
    assert confusion_matrix(labels, answers, 5).tolist() == expected.tolist()


@given(PAIRS)
def test_classes_weighted_by_their_images_give_the_accuracy_of_all(pairs: list[tuple[int, int]]) -> None:
    labels, answers = (indices(*column) for column in zip(*pairs, strict=True))
    found = accuracy_of_classes(Predictions(("",) * len(pairs), labels, answers, None), NAMES)
    assert sum(each.images for each in found) == len(pairs)
    right = sum(each.images * each.network for each in found if each.network is not None)
    assert right / len(pairs) == pytest.approx(100 * float((labels == answers).mean()))
    assert all(each.deployed is None for each in found)


def test_a_class_without_images_has_no_accuracy() -> None:
    own = Predictions(("a", "b"), indices(0, 0), indices(0, 1), indices(1, 1))
    ant, bee = accuracy_of_classes(own, ("ant", "bee"))
    assert (ant.images, ant.network, ant.deployed) == (2, 50.0, 0.0)
    assert (bee.images, bee.network, bee.deployed) == (0, None, None)


def test_the_commonest_wrong_answers_of_what_ships_come_first() -> None:
    labels, network = indices(0, 0, 0, 1, 1, 2), indices(1, 0, 0, 0, 0, 2)
    own = Predictions(("",) * 6, labels, network, indices(1, 1, 2, 0, 1, 2))
    found = [(c.label, c.answer, c.network, c.deployed) for c in largest_confusions(own, NAMES[:3], 9)]
    assert found == [("ant", "bee", 1, 2), ("ant", "cat", 0, 1), ("bee", "ant", 2, 1)]
    assert len(largest_confusions(own, NAMES[:3], 2)) == 2


def test_a_network_that_is_always_right_confuses_nothing() -> None:
    assert largest_confusions(Predictions(("a",), indices(1), indices(1), None), NAMES, 5) == ()
