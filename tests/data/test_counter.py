"""Random numbers by position: published values, independence of order, and uniformity."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.data.counter import Stream, shuffled, uniforms

MASK = 2**64 - 1


def splitmix64(start: int, count: int) -> list[int]:
    """The published sequential generator, in Python integers."""
    numbers = []
    for _ in range(count):
        start = (start + 0x9E3779B97F4A7C15) & MASK
        z = ((start ^ (start >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        numbers.append(z ^ (z >> 31))
    return numbers


def test_numbers_are_those_of_the_sequential_generator() -> None:
    # First outputs of SplitMix64 for seed 1234567, as published with the algorithm's test vectors.
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]
    start = int(np.random.SeedSequence((Stream.ORDER, 3, 7)).generate_state(1, np.uint64)[0])
    expected = np.array([number >> 11 for number in splitmix64(start, 12)]) * 2.0**-53
    found = uniforms(Stream.ORDER, 7, 3, np.arange(4), 3)
    assert np.array_equal(found, expected.reshape(4, 3))


@given(
    seed=st.integers(0, 2**70),
    epoch=st.integers(0, 2**31),
    indices=st.lists(st.integers(0, 10**7), min_size=1),
)
def test_a_row_depends_on_its_own_index_alone(seed: int, epoch: int, indices: list[int]) -> None:
    together = uniforms(Stream.AUGMENTATION, seed, epoch, np.array(indices), 3)
    alone = [uniforms(Stream.AUGMENTATION, seed, epoch, np.array([index]), 3)[0] for index in indices]
    assert np.array_equal(together, np.stack(alone))
    assert ((together >= 0) & (together < 1)).all()


@given(seed=st.integers(0, 2**70), epoch=st.integers(0, 1000), count=st.integers(0, 300))
def test_shuffled_is_a_permutation_and_repeatable(seed: int, epoch: int, count: int) -> None:
    order = shuffled(Stream.ORDER, seed, epoch, count)
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(order, shuffled(Stream.ORDER, seed, epoch, count))


def test_seeds_epochs_and_streams_differ() -> None:
    base = shuffled(Stream.ORDER, 0, 0, 50).tolist()
    for other in ((Stream.SUBSET, 0, 0), (Stream.ORDER, 1, 0), (Stream.ORDER, 0, 1)):
        assert shuffled(*other, 50).tolist() != base


def test_numbers_are_uniform() -> None:
    numbers = uniforms(Stream.AUGMENTATION, 0, 0, np.arange(50_000), 2)
    histogram = np.histogram(numbers, 20, (0, 1))[0]
    # Chi-squared with 19 degrees of freedom: 43.8 is its 99.9 % point.
    assert ((histogram - 5000) ** 2 / 5000).sum() < 43.8
    assert abs(((numbers[:, 0] - 0.5) * (numbers[:, 1] - 0.5)).mean()) < 0.002
