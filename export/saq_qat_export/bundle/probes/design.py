"""Codes for which a layer's sums lie right beside rounding steps, so that any weight or bias moves a code."""

import numpy as np
import numpy.typing as npt

from saq_qat_export.bundle.probes.layers import SummedLayer
from saq_qat_export.bundle.probes.needs import Bools, Needs, needs_of
from saq_qat_export.bundle.probes.steps import FAR, Integers, nearest

__all__ = ["design_samples", "samples_needed"]

Samples = npt.NDArray[np.int16]
_REPAIRS = 12
_TAPS_TRIED, _CODES_TRIED = 256, 16
_POSITIONS = 256
# Fields that are tried at each place, of which the one that shows most is kept; fewer in large layers.
_DRAWN, _PRODUCTS = 8, 1 << 22
_FIELDS_OF_CHANNEL = 4
# So many samples running that show less, of all that was open, are the last: codes serve other layers better.
_POOR, _LEAST_GAIN = 8, 2e-4


def design_samples(layer: SummedLayer, elements: int, most: int, random: np.random.Generator) -> Samples:
    """Samples (N, elements), N up to ``most``, of the codes that ``layer`` reads, without zero point.

    In every sample, fields of positions that share no element are filled, one channel after the other; the
    rest is 0.

    Args:
        elements: of a sample.
    """
    groups = needs_of(layer)
    samples: list[Samples] = []
    left = at_first = sum(int(needs.left.sum()) for needs in groups)
    turn = poor = 0
    while len(samples) < most and any(needs.is_open for needs in groups):
        sample = np.zeros(elements + 1, np.int16)
        order = _apart(layer.cells, turn)
        turn += 1
        filled = False
        for index, needs in enumerate(groups):
            for position in order:
                filled |= _fill(layer, needs, layer.cells[position, index], sample, random)
        if not filled:
            break
        before, left = left, sum(int(needs.left.sum()) for needs in groups)
        if left < before:
            samples.append(sample[1:])
        poor = poor + 1 if before - left < _LEAST_GAIN * at_first else 0
        if poor == _POOR:
            break
    return np.stack(samples) if samples else np.zeros((0, elements), np.int16)


def samples_needed(layer: SummedLayer) -> int:
    """About how many samples ``design_samples`` would fill, had it no limit: some fields for each channel."""
    if layer.steps is None:
        return 0
    fields = max(len(_apart(layer.cells, 0)), 1)
    return -(-_FIELDS_OF_CHANNEL * int(layer.weight.shape[1]) // fields)


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
    needs: Needs,
    cells: npt.NDArray[np.int32],
    sample: Samples,
    random: np.random.Generator,
) -> bool:
    """Write one field for what is most in need, and note what it shows; False where nothing can be done."""
    valid = np.append(cells > 0, True)
    goal = needs.goal(valid)
    if goal is None:
        return False
    needs.tried[goal] += 1
    fields = max(min(_DRAWN, _PRODUCTS // needs.weight.size), 1)
    drawn = (_beside_step(layer, needs, goal, valid[:-1], random) for _ in range(fields))
    found = [(codes, needs.shown(codes, valid)) for codes in drawn if codes is not None]
    if not found:
        return True
    codes, shown = max(found, key=lambda entry: entry[1].count)
    sample[cells[valid[:-1]]] = codes[valid[:-1]]
    needs.note(shown)
    if shown.count:
        needs.tried[goal] = 0
    return True


def _beside_step(
    layer: SummedLayer,
    needs: Needs,
    goal: int,
    valid: Bools,
    random: np.random.Generator,
) -> Integers | None:
    """Codes (taps,), 0 where padding is read, whose sum is as near to a step as the channel's can be."""
    weight, bias = needs.weight[goal % len(needs.weight)], int(needs.bias[goal % len(needs.weight)])
    targets, margin = _targets(needs, goal, int(np.gcd.reduce(weight[valid])))
    for lowest in dict.fromkeys((max((layer.highest + 1) // 2, 1), 1, 0)):
        ends = np.where(weight > 0, lowest, layer.highest), np.where(weight > 0, layer.highest, lowest)
        low, high = (int((weight * end)[valid].sum()) + bias for end in ends)
        inside = np.flatnonzero((targets >= low) & (targets <= high) & (margin <= layer.highest))
        if not len(inside):
            continue
        best = inside[margin[inside] == margin[inside].min()]
        # at the last of the steps a scale matters most; if that is in vain, any other
        target = int(targets[best[-1] if needs.tried[goal] == 1 else random.choice(inside)])
        share = (target - low) / max(high - low, 1)
        codes = np.floor(ends[0] + share * (ends[1] - ends[0]) + random.random(len(weight))).astype(np.int64)
        codes = np.where(valid, np.clip(codes, lowest, layer.highest), 0)
        return _repaired(weight, codes, target - bias, (lowest, layer.highest), valid, random)
    return None


def _targets(needs: Needs, goal: int, unit: int) -> tuple[Integers, Integers]:
    """Sums that show a channel's change, and how far each lies from its step.

    Sums of the channel are its bias plus multiples of ``unit``.
    """
    kind, channel = divmod(goal, len(needs.weight))
    steps, bias = needs.steps[channel], int(needs.bias[channel])
    is_step = np.abs(steps) < FAR
    if kind < 2:
        above, below = nearest(steps, bias, unit)
        targets, margin = (steps - above, above) if kind == 0 else (steps + below - 1, below)
        return targets[is_step], margin[is_step]
    other = needs.moved[kind - 2, channel]
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
