"""Of which weights and biases the smallest change shows in the codes that layers answer samples with.

Counted from the samples and the layer alone, whatever chose the samples: every sum, how far it is from the
next code, and what each tap read there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from saq_qat_export.bundle.probes.layers import SummedLayer
from saq_qat_export.bundle.probes.steps import FAR, Integers, margins, nearest

__all__ = ["LayerCoverage", "cover", "reachable_sums"]

Bools = npt.NDArray[np.bool_]
_AT_ONCE = 1 << 22
_LOOKED_AT = 48
# A sum below it, as float32, is another number if it changes by 1; two roundings may lie between.
_SEEN_IN_FLOAT = 1 << 21


@dataclass
class LayerCoverage:
    """Changes up and down of each weight, bias and weight scale: shown, or proved to show in no code at all.

    Attributes:
        shown: bool (2, groups, out / groups, taps + 2), up and down; behind the taps bias, then scale.
        without_effect: the same shape: whatever codes the layer reads, no code that it writes changes.
    """

    name: str
    shown: Bools
    without_effect: Bools
    samples: int = field(default=0)

    @property
    def changes(self) -> int:
        """How many could show."""
        return int((~self.without_effect).sum())

    @property
    def found(self) -> int:
        return int((self.shown & ~self.without_effect).sum())


def cover(
    layer: SummedLayer, samples: Iterable[npt.NDArray[np.int16]], rows: int | None = None
) -> LayerCoverage:
    """What samples (N, elements) of codes without zero point show of ``layer``.

    Args:
        rows: how many at the head are compared; all of them if left out.
    """
    shape = (2, *layer.weight.shape[:2], layer.weight.shape[2] + 2)
    found = LayerCoverage(layer.name, np.zeros(shape, np.bool_), _without_effect(layer))
    per_sample = max(layer.cells[:, 0].size, 1)
    at_once = max(_AT_ONCE // per_sample, 1)
    for batch in samples:
        found.samples += len(batch)
        for start in range(0, len(batch), at_once):
            for group in range(len(layer.weight)):
                read = layer.inputs(batch[start : start + at_once], group)
                flat = read.reshape(-1, read.shape[-1])
                _cover_group(layer, group, flat[:rows], found.shown[:, group])
            if rows is not None:
                break
    return found


def _cover_group(layer: SummedLayer, group: int, read: npt.NDArray[np.int16], shown: Bools) -> None:
    """read: (many, taps). shown: (2, out, taps + 2), written to."""
    weight, bias = layer.weight[group], layer.bias[group]
    sums = np.rint(weight.astype(np.float64) @ read.T.astype(np.float64)).astype(np.int64) + bias[:, None]
    if layer.steps is None or layer.moved is None:
        is_seen = np.abs(sums) < _SEEN_IN_FLOAT
        up = down = np.where(is_seen, 1, FAR)
        shown[:, :, -1] |= (sums != 0).any(1)
    else:
        up, down = margins(sums, layer.steps[group])
        for direction, moved in enumerate(layer.moved[:, group]):
            shown[direction, :, -1] |= _codes_differ(sums, layer.steps[group], moved)
    most = max(layer.highest, -layer.lowest, 1)
    for channel in range(len(weight)):
        above, below = _near(up[channel], most), _near(down[channel], most)
        rises, falls = (
            np.concatenate([read[near], np.ones((len(near), 1), np.int16)], axis=1).astype(np.int64)
            for near in (above, below)
        )
        up_margin, down_margin = up[channel][above, None], down[channel][below, None]
        # a code below 0 turns the direction round
        shown[0, channel, :-1] |= (rises >= up_margin).any(0) | (-falls >= down_margin).any(0)
        shown[1, channel, :-1] |= (falls >= down_margin).any(0) | (-rises >= up_margin).any(0)


def _codes_differ(sums: Integers, steps: Integers, others: Integers) -> Bools:
    """(out,): whether any sum (out, many) of a channel has another code with other steps (out, codes)."""
    return np.array(
        [
            bool((np.searchsorted(own, row, "right") != np.searchsorted(other, row, "right")).any())
            for row, own, other in zip(sums, steps, others, strict=True)
        ]
    )


def _near(margin: Integers, most: int) -> npt.NDArray[np.intp]:
    """Where sums are near enough to a step to matter; the nearest, where many are."""
    near = np.flatnonzero(margin <= most)
    if len(near) <= _LOOKED_AT:
        return near
    return near[np.argpartition(margin[near], _LOOKED_AT)[:_LOOKED_AT]]


def _without_effect(layer: SummedLayer) -> Bools:
    """Taps that read padding alone, and channels whose sums all lie too far from any step.

    Sums are the bias plus multiples of the weights' greatest common divisor, between what the lowest and the
    highest codes give: a change is without effect if no such sum crosses a step with it.
    """
    shape = (2, *layer.weight.shape[:2], layer.weight.shape[2] + 2)
    found = np.zeros(shape, np.bool_)
    for group, rows in enumerate(layer.weight):
        found[:, group, :, :-2] = ~(layer.cells[:, group] > 0).any(0)
        if layer.steps is None or layer.moved is None:
            continue
        for channel in range(len(rows)):
            up, down = _smallest_margins(layer, group, channel)
            highest, lowest = layer.highest, -layer.lowest
            weights, bias = found[:, group, channel, :-2], found[:, group, channel, -2]
            weights[0] |= up > highest and down > lowest
            weights[1] |= down > highest and up > lowest
            bias[0], bias[1] = up > 1, down > 1
            for direction, moved in enumerate(layer.moved[:, group, channel]):
                found[direction, group, channel, -1] = _rounds_alike(layer, group, channel, moved)
    return found


def _smallest_margins(layer: SummedLayer, group: int, channel: int) -> tuple[int, int]:
    """Up and down, of all sums that the channel can have."""
    bias = int(layer.bias[group, channel])
    steps = np.zeros(0, np.int64) if layer.steps is None else layer.steps[group, channel]
    least, most, unit = reachable_sums(layer, group, channel)
    above, below = nearest(steps, bias, unit)
    # sums beyond the ends are none: the next that is one lies some units farther from the step
    above = above + unit * _units(steps - above - most, unit)
    below = below + unit * _units(least - (steps + below - 1), unit)
    up, down = above[steps - above >= least], below[steps + below - 1 <= most]
    return int(up.min(initial=FAR)), int(down.min(initial=FAR))


def _rounds_alike(layer: SummedLayer, group: int, channel: int, others: Integers) -> bool:
    """Whether every sum that the channel can have has the same code with other steps (codes,)."""
    steps = np.zeros(0, np.int64) if layer.steps is None else layer.steps[group, channel]
    least, most, unit = reachable_sums(layer, group, channel)
    bias = int(layer.bias[group, channel])
    for low, high in zip(np.minimum(steps, others), np.maximum(steps, others), strict=True):
        first, last = max(int(low), least), min(int(high) - 1, most)
        between = (
            first <= last and (last - bias) // unit * unit + bias >= first if unit else low <= bias < high
        )
        if between:
            return False
    return True


def reachable_sums(layer: SummedLayer, group: int, channel: int) -> tuple[int, int, int]:
    """The least and the most that a channel's sum can be, and the distance of any two, or 0 if it is one."""
    row, bias = layer.weight[group, channel], int(layer.bias[group, channel])
    padded = bool((layer.cells[:, group] == 0).any())
    low, high = min(layer.lowest, 0) if padded else layer.lowest, layer.highest
    ends = row * low, row * high
    least, most = int(np.minimum(*ends).sum()) + bias, int(np.maximum(*ends).sum()) + bias
    return least, most, int(np.gcd.reduce(row))


def _units(excess: Integers, unit: int) -> Integers:
    """How many units cover an excess; none where there is no excess, or no unit."""
    return np.maximum(-(-excess // unit), 0) if unit else np.zeros_like(excess)
