"""Where a sum becomes another code: how far every sum of a channel lies from the next code, up and down."""

import numpy as np
import numpy.typing as npt

from saq_qat_export.reference import integer_math as math
from saq_qat_export.reference.integer_math import CodeRange, Float32

__all__ = ["FAR", "Integers", "margins", "nearest", "rounding_steps"]

Integers = npt.NDArray[np.int64]

FAR = 1 << 40
"""A margin or a step that no sum reaches."""


def rounding_steps(grid: Float32, scale: np.float32, codes: CodeRange) -> Integers:
    """Steps (out, codes above the lowest), ascending: the smallest sum whose code is at least that one.

    Found by bisection over int32, by the arithmetic of the kernel itself, whose codes never fall as sums do.

    Args:
        grid: float32 (out,), the value of one unit of each channel's sums.
        scale: of the codes.
    """
    wanted = np.arange(codes.minimum + 1, codes.maximum + 1)[None]
    shape = (len(grid), wanted.size)
    low, high = np.full(shape, -(2**31), np.int64), np.full(shape, 2**31, np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        sums = np.minimum(middle, 2**31 - 1).astype(np.int32)
        reached = math.requantize_accumulator(sums, grid[:, None], scale, codes) >= wanted
        low, high = np.where(reached, low, np.minimum(middle + 1, high)), np.where(reached, middle, high)
    return np.where(low >= 2**31 - 1, FAR, np.where(low <= -(2**31), -FAR, low))


def margins(sums: Integers, steps: Integers) -> tuple[Integers, Integers]:
    """How far sums (out, many) must rise, and how far fall, to become another code: (out, many) each."""
    if sums.shape[1] == 1:
        around = np.pad(steps, ((0, 0), (1, 1)), constant_values=((0, 0), (-FAR, FAR)))
        place = (steps <= sums).sum(1, keepdims=True)
        below, above = (np.take_along_axis(around, place + side, axis=1) for side in (0, 1))
        return above - sums, sums - below + 1
    up, down = np.empty_like(sums), np.empty_like(sums)
    for channel, own in enumerate(steps):
        around = np.concatenate([[-FAR], own, [FAR]])
        place = np.searchsorted(own, sums[channel], side="right")
        up[channel] = around[place + 1] - sums[channel]
        down[channel] = sums[channel] - around[place] + 1
    return up, down


def nearest(steps: Integers, bias: int, unit: int) -> tuple[Integers, Integers]:
    """The smallest margins, up and down, at each step (steps,) of one channel that any sum can have.

    Args:
        unit: the greatest common divisor of the channel's weights: sums are ``bias`` plus multiples of it. 0
            where all weights are 0, and the sum is the bias.
    """
    if unit == 0:
        up, down = steps - bias, bias - steps + 1
        return np.where(up > 0, up, FAR), np.where(down > 0, down, FAR)
    return (steps - 1 - bias) % unit + 1, (bias - steps) % unit + 1
