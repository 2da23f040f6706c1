"""Which changes of a layer's weights, biases and scales show in no field of codes so far, and can."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from saq_qat_export.bundle.probes.layers import SummedLayer
from saq_qat_export.bundle.probes.steps import FAR, Integers, margins, nearest

__all__ = ["Bools", "Needs", "Shown", "needs_of"]

Bools = npt.NDArray[np.bool_]
_ATTEMPTS = 8
_CANDIDATES = 32


@dataclass(frozen=True)
class Shown:
    """What a field shows that nothing showed before.

    Attributes:
        rows: of ``Needs.open_codes``. part: bool (rows, taps + 1). scales: bool (2 out,).
    """

    rows: npt.NDArray[np.intp]
    part: Bools
    scales: Bools

    @property
    def count(self) -> int:
        return int(self.part.sum() + self.scales.sum())


@dataclass(frozen=True)
class Needs:
    """What one group of channels still needs. Goals: each channel up, down, at a larger, at a smaller scale.

    Attributes:
        weight: (out, taps), and ``wide`` the same as float64. bias: (out,). steps: (out, steps).
        moved: steps (2, out, steps) at the other scales.
        open_codes: bool (2 out, taps + 1), up then down: weights, then the bias. open_scales: bool (2 out,).
        left: how much is open, and tried: how often in vain, by goal (4 out,).
    """

    weight: Integers
    wide: npt.NDArray[np.float64]
    bias: Integers
    steps: Integers
    moved: Integers
    open_codes: Bools
    open_scales: Bools
    left: Integers
    tried: Integers

    @property
    def is_open(self) -> bool:
        return bool(((self.left > 0) & (self.tried < _ATTEMPTS)).any())

    def goal(self, valid: Bools) -> int | None:
        """What is most in need of what ``valid`` taps (taps + 1,) can show, and was not tried in vain."""
        rank = np.where(self.tried < _ATTEMPTS, self.left / (1.0 + self.tried) ** 2, 0)
        most = np.argsort(-rank, kind="stable")[:_CANDIDATES]
        for goal in most[rank[most] > 0].tolist():
            if goal >= len(self.open_codes) or (self.open_codes[goal] & valid).any():
                return int(goal)
        return None

    def shown(self, codes: Integers, valid: Bools) -> Shown:
        """What a field of codes (taps,) shows."""
        # a product of floats is quicker, and exact
        sums = (self.wide @ codes.astype(np.float64)).astype(np.int64)[:, None] + self.bias[:, None]
        margin = np.concatenate(margins(sums, self.steps))
        reach = np.where(valid, np.append(codes, 1), 0)
        rows = np.flatnonzero((margin[:, 0] <= reach.max()) & (self.left[: len(margin)] > 0))
        own, *others = ((steps <= sums).sum(1) for steps in (self.steps, *self.moved))
        return Shown(
            rows,
            self.open_codes[rows] & (margin[rows] <= reach),
            self.open_scales & (np.concatenate(others) != np.tile(own, 2)),
        )

    def note(self, shown: Shown) -> None:
        """From now on it shows."""
        rows = len(self.open_codes)
        self.open_codes[shown.rows] &= ~shown.part
        self.left[shown.rows] -= shown.part.sum(1)
        self.open_scales[shown.scales] = False
        self.left[rows:][shown.scales] = 0


def needs_of(layer: SummedLayer) -> list[Needs]:
    """All that can show, group by group; nothing of a layer that writes floats, which show any change."""
    if layer.steps is None or layer.moved is None:
        return []
    return [
        _group(layer, index, layer.steps[index], layer.moved[:, index]) for index in range(len(layer.weight))
    ]


def _group(layer: SummedLayer, index: int, steps: Integers, moved: Integers) -> Needs:
    """A tap that is ever read, and a sum that can lie near enough to a step."""
    weight, bias = layer.weight[index], layer.bias[index]
    is_read = np.append((layer.cells[:, index] > 0).any(0), True)
    smallest = np.empty((2, len(weight)), np.int64)
    for channel, row in enumerate(weight):
        usable = np.abs(steps[channel]) < FAR
        found = nearest(steps[channel], int(bias[channel]), int(np.gcd.reduce(row)))
        smallest[:, channel] = [margin[usable].min(initial=FAR) for margin in found]
    reach = np.append(np.full(weight.shape[1], layer.highest), 1)
    open_codes = is_read & (smallest.reshape(-1, 1) <= reach)
    open_scales = (moved != steps).any(2).ravel()
    left = np.concatenate([open_codes.sum(1), open_scales]).astype(np.int64)
    wide = weight.astype(np.float64)
    return Needs(weight, wide, bias, steps, moved, open_codes, open_scales, left, np.zeros_like(left))
