"""Codes for which a layer's sums lie right beside rounding steps, so that any weight or bias moves a code."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from saq_qat_export.bundle.probes.layers import SummedLayer
from saq_qat_export.bundle.probes.steps import FAR, Integers, margins, nearest

__all__ = ["design_samples"]

Bools = npt.NDArray[np.bool_]
Samples = npt.NDArray[np.int16]
_REPAIRS = 12
_TAPS_TRIED, _CODES_TRIED = 256, 16
_POSITIONS = 256
_ATTEMPTS = 8
# Fields that are tried at each place, of which the one that shows most is kept; fewer in large layers.
_DRAWN, _PRODUCTS = 8, 1 << 22
# A sample that shows less, of all that was open, is the last: the codes serve other layers better.
_LEAST_GAIN = 2e-4


@dataclass
class _Group:
    """What one group of channels still needs.

    Attributes:
        wide: the weights as float64.
        moved: steps (2, out, steps) with other scales, of which open_scale (2, out) show nowhere yet.
        tried: how often in vain, for each channel up, down, with a larger and with a smaller scale.
        open_up, open_down: bool (out, taps + 1): weights, then the bias, whose step up or down shows nowhere
            yet, and can.
    """

    weight: Integers
    wide: npt.NDArray[np.float64]
    bias: Integers
    steps: Integers
    moved: Integers
    open_scale: Bools
    open_up: Bools
    open_down: Bools
    tried: Integers


def design_samples(layer: SummedLayer, elements: int, most: int, random: np.random.Generator) -> Samples:
    """Samples (N, elements), N up to ``most``, of the codes that ``layer`` reads, without zero point.

    In every sample, fields of positions that share no element are filled, one channel after the other; the
    rest is 0.

    Args:
        elements: of a sample.
    """
    groups = [_group(layer, index) for index in range(len(layer.weight))] if layer.steps is not None else []
    samples: list[Samples] = []
    at_first = left = sum(map(_count, groups))
    while len(samples) < most and any(_is_open(group) for group in groups):
        sample = np.zeros(elements + 1, np.int16)
        order = _apart(layer.cells, len(samples))
        filled = False
        for index, group in enumerate(groups):
            for position in order:
                filled |= _fill(layer, group, layer.cells[position, index], sample, random)
        if not filled:
            break
        samples.append(sample[1:])
        before, left = left, sum(map(_count, groups))
        if before - left < _LEAST_GAIN * at_first:
            break
    return np.stack(samples) if samples else np.zeros((0, elements), np.int16)


def _group(layer: SummedLayer, index: int) -> _Group:
    """All that can show: a tap that is ever read, and a sum that can lie near enough to a step."""
    if layer.steps is None or layer.moved is None:
        raise ValueError(f"{layer.name} writes floats, which have no steps")
    weight, bias, steps = layer.weight[index], layer.bias[index], layer.steps[index]
    moved = layer.moved[:, index]
    is_read = np.append((layer.cells[:, index] > 0).any(0), True)
    up, down = np.empty((2, len(weight)), np.int64)
    for channel, row in enumerate(weight):
        above, below = nearest(steps[channel], int(bias[channel]), int(np.gcd.reduce(row)))
        usable = np.abs(steps[channel]) < FAR
        up[channel] = above[usable].min(initial=FAR)
        down[channel] = below[usable].min(initial=FAR)
    reach = np.append(np.full(weight.shape[1], layer.highest), 1)
    return _Group(
        weight, weight.astype(np.float64), bias, steps, moved,
        (moved != steps).any(2),
        is_read & (up[:, None] <= reach),
        is_read & (down[:, None] <= reach),
        np.zeros(4 * len(weight), np.int64),
    )  # fmt: skip  # one value a line is a page


def _count(group: _Group) -> int:
    return int(group.open_up.sum() + group.open_down.sum() + group.open_scale.sum())


def _is_open(group: _Group) -> bool:
    left = np.concatenate([group.open_up.any(1), group.open_down.any(1), *group.open_scale])
    return bool((left & (group.tried < _ATTEMPTS)).any())


def _apart(cells: npt.NDArray[np.int32], turn: int) -> list[int]:
    """Positions that share no element, those that read the least padding first; another choice every turn."""
    read = (cells > 0).sum((1, 2))
    order = np.argsort(-read, kind="stable")
    if read.max() < cells[0].size:
        order = np.roll(order, -turn)
    taken: set[int] = set()
    chosen = []
    for position in order[: 16 * _POSITIONS].tolist():
        own = set(cells[position].ravel().tolist()) - {0}
        if own and taken.isdisjoint(own):
            chosen.append(position)
            taken |= own
            if len(chosen) == _POSITIONS:
                break
    return chosen


def _fill(
    layer: SummedLayer,
    group: _Group,
    cells: npt.NDArray[np.int32],
    sample: Samples,
    random: np.random.Generator,
) -> bool:
    """Write one field for what is most in need, and note what it shows; False where nothing can be done."""
    valid = np.append(cells > 0, True)
    needs = np.concatenate(
        [*((open_ & valid).sum(1) for open_ in (group.open_up, group.open_down)), *group.open_scale]
    )
    needs[group.tried >= _ATTEMPTS] = 0
    # what was tried in vain waits for the others
    goal = int((needs / (1.0 + group.tried) ** 2).argmax())
    if needs[goal] == 0:
        return False
    group.tried[goal] += 1
    drawn = (_beside_step(layer, group, goal, valid[:-1], random) for _ in range(_fields_tried(group)))
    found = [(codes, *_shown(group, codes, valid)) for codes in drawn if codes is not None]
    if not found:
        return True
    codes, *shown = max(found, key=lambda entry: sum(int(part.sum()) for part in entry[1:]))
    sample[cells[valid[:-1]]] = codes[valid[:-1]]
    for still_open, part in zip((group.open_up, group.open_down, group.open_scale), shown, strict=True):
        still_open &= ~part
    if any(part.any() for part in shown):
        group.tried[goal] = 0
    return True


def _fields_tried(group: _Group) -> int:
    return max(min(_DRAWN, _PRODUCTS // group.weight.size), 1)


def _shown(group: _Group, codes: Integers, valid: Bools) -> tuple[Bools, Bools, Bools]:
    """What a field shows of what is open: as open_up, open_down and open_scale."""
    # a product of floats is quicker, and exact
    sums = (group.wide @ codes.astype(np.float64)).astype(np.int64) + group.bias
    up, down = margins(sums[:, None], group.steps)
    reach = np.append(codes, 1)
    own, *others = ((steps <= sums[:, None]).sum(1) for steps in (group.steps, *group.moved))
    return (
        group.open_up & valid & (up <= reach),
        group.open_down & valid & (down <= reach),
        group.open_scale & (np.stack(others) != own),
    )


def _beside_step(
    layer: SummedLayer,
    group: _Group,
    goal: int,
    valid: Bools,
    random: np.random.Generator,
) -> Integers | None:
    """Codes (taps,), 0 where padding is read, whose sum is as near to a step as the channel's can be."""
    weight, bias = group.weight[goal % len(group.weight)], int(group.bias[goal % len(group.weight)])
    targets, margin = _targets(group, goal, int(np.gcd.reduce(weight[valid])))
    for lowest in dict.fromkeys((max((layer.highest + 1) // 2, 1), 1)):
        ends = np.where(weight > 0, lowest, layer.highest), np.where(weight > 0, layer.highest, lowest)
        low, high = (int((weight * end)[valid].sum()) + bias for end in ends)
        inside = np.flatnonzero((targets >= low) & (targets <= high) & (margin <= layer.highest))
        if not len(inside):
            continue
        best = inside[margin[inside] == margin[inside].min()]
        # at the last of the steps a scale matters most; if that is in vain, any other
        target = int(targets[best[-1] if group.tried[goal] == 1 else random.choice(inside)])
        share = (target - low) / max(high - low, 1)
        codes = np.floor(ends[0] + share * (ends[1] - ends[0]) + random.random(len(weight))).astype(np.int64)
        codes = np.where(valid, np.clip(codes, lowest, layer.highest), 0)
        return _repaired(weight, codes, target - bias, (lowest, layer.highest), valid, random)
    return None


def _targets(group: _Group, goal: int, unit: int) -> tuple[Integers, Integers]:
    """Sums that show a channel's change, and how far each lies from its step.

    Sums of the channel are its bias plus multiples of ``unit``.
    """
    kind, channel = divmod(goal, len(group.weight))
    steps, bias = group.steps[channel], int(group.bias[channel])
    is_step = np.abs(steps) < FAR
    if kind < 2:
        above, below = nearest(steps, bias, unit)
        targets, margin = (steps - above, above) if kind == 0 else (steps + below - 1, below)
        return targets[is_step], margin[is_step]
    other = group.moved[kind - 2, channel]
    first, last = np.minimum(steps, other), np.maximum(steps, other) - 1
    targets = last - (last - bias) % unit if unit else np.full_like(last, bias)
    shows = is_step & (np.abs(other) < FAR) & (targets >= first) & (targets <= last)
    return targets[shows], np.ones(int(shows.sum()), np.int64)


def _repaired(
    weight: Integers,
    codes: Integers,
    wanted: int,
    bounds: tuple[int, int],
    valid: Bools,
    random: np.random.Generator,
) -> Integers:
    """Codes changed one by one until their sum is as wanted, or no change brings it nearer."""
    taps = np.flatnonzero(valid & (weight != 0))
    values = np.arange(bounds[0], bounds[1] + 1)
    for _ in range(_REPAIRS):
        missing = wanted - int(weight @ codes)
        if missing == 0 or not len(taps):
            break
        some = taps if len(taps) <= _TAPS_TRIED else random.choice(taps, _TAPS_TRIED, replace=False)
        tried = values if len(values) <= _CODES_TRIED else random.choice(values, _CODES_TRIED, replace=False)
        left = np.abs(missing - weight[some, None] * (tried - codes[some, None]))
        # now and then another than the nearest, out of dead ends
        rank = 0 if random.random() < 0.7 else int(random.integers(min(4, left.size)))
        place = int(np.argpartition(left.ravel(), rank)[rank])
        codes[some[place // len(tried)]] = tried[place % len(tried)]
    return codes
