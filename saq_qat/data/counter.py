"""Random numbers by position: any entry of a stream can be computed alone, in any order, in any process.

SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014) gives its i-th
number as a hash of start + i * constant. Data order and augmentation read it, so that neither workers, nor
resuming, nor a newer library changes a batch.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stream", "seeds", "shuffled", "uniforms"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_MULTIPLIER = np.uint64(0x94D049BB133111EB)


class Stream(IntEnum):
    """What numbers are for; streams of one seed are independent of each other."""

    ORDER = 0
    AUGMENTATION = 1
    SUBSET = 2
    SYNTHETIC = 3
    POLICY = 4
    MIXING = 5


def _hashes(stream: Stream, seed: int, epoch: int, positions: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # The seed comes last: it is the only one that may fill several of SeedSequence's 32-bit words.
    start = np.random.SeedSequence((stream, epoch, seed)).generate_state(1, np.uint64)[0]
    z = start + (positions + np.uint64(1)) * _GAMMA
    z = (z ^ (z >> np.uint64(30))) * _FIRST_MULTIPLIER
    z = (z ^ (z >> np.uint64(27))) * _SECOND_MULTIPLIER
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def uniforms(
    stream: Stream, seed: int, epoch: int, indices: NDArray[np.int64], width: int
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), [len(indices), width]; row i depends on its index and the first three."""
    columns = np.arange(width, dtype=np.uint64)
    positions = indices.astype(np.uint64)[:, None] * np.uint64(width) + columns
    # The upper 53 bits fill a float64's significand exactly.
    return (_hashes(stream, seed, epoch, positions) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def seeds(stream: Stream, seed: int, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A seed for each index, of a generator that draws all that belongs to it; of 32 bits, as torch's has."""
    return _hashes(stream, seed, epoch, indices.astype(np.uint64)) >> np.uint64(32)


def shuffled(stream: Stream, seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """A permutation of 0..count-1, int64 [count], that is a function of the arguments."""
    keys = _hashes(stream, seed, epoch, np.arange(count, dtype=np.uint64))
    return np.argsort(keys, kind="stable").astype(np.int64)
