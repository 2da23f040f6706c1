"""The loss along random directions around the quantized weights (paper Figures 1, B and C).

Source: H. Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, Section 4: Gaussian
directions, each filter scaled to the norm of the filter it is added to, so that networks whose weights have
different scales can be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saq_qat.analysis.surface import LossSurface
from saq_qat.errors import RecipeError

__all__ = ["Line", "Plane", "filter_normalised", "loss_line", "loss_plane", "steps_within"]

_SAME = 1e-12


@dataclass(frozen=True)
class Line:
    """L(a d) for each step a.

    Attributes:
        steps: multiples of a direction whose filters are as long as the network's; 0 is the network.
        losses: one for each step.
    """

    steps: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Plane:
    """L(a d1 + b d2).

    Attributes:
        steps: values of a and of b.
        losses: rows by b, columns by a.
    """

    steps: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]


def steps_within(reach: float, count: int) -> tuple[float, ...]:
    """``count`` steps from -reach to reach, symmetric, with 0 among them.

    Raises:
        RecipeError: an even or too small count, or a reach that is not positive.
    """
    if count < 3 or count % 2 == 0 or not reach > 0:
        raise RecipeError(
            "Steps of a landscape lie symmetric around the network, which is one of them: an odd number from "
            f"3 on, over a positive reach; got {count} over {reach:g}."
        )
    half = count // 2
    return tuple(reach * (index / half) for index in range(-half, half + 1))


def filter_normalised(centres: Sequence[Tensor], count: int, seed: int) -> list[list[Tensor]]:
    """Random directions, each filter as long as the one of ``centres`` that it is added to.

    What is drawn depends on the seed and the shapes alone, so networks of one shape are moved alike. Filter
    by filter, each direction is at right angles to those before it; filters of one weight cannot be.

    Args:
        centres: weights (out, ...).
        count: of directions.

    Returns:
        For each direction one tensor for each centre, of its shape, dtype and device.
    """
    found: list[list[Tensor]] = []
    for number in range(count):
        generator = torch.Generator().manual_seed(1_000_003 * seed + number)
        direction = []
        for place, centre in enumerate(centres):
            drawn = torch.randn(centre.shape, dtype=torch.float64, generator=generator).flatten(1)
            for before in found:
                drawn = _at_right_angles(drawn, before[place].cpu().double().flatten(1))
            lengths = centre.detach().cpu().double().flatten(1).norm(dim=1, keepdim=True)
            unit = drawn / drawn.norm(dim=1, keepdim=True).clamp_min(_SAME)
            direction.append((unit * lengths).reshape(centre.shape).to(centre))
        found.append(direction)
    return found


def _at_right_angles(drawn: Tensor, before: Tensor) -> Tensor:
    """Rows of ``drawn`` less their part along the rows of ``before``; as they are where nothing is left."""
    squared = (before * before).sum(1, keepdim=True).clamp_min(_SAME)
    rest = drawn - (drawn * before).sum(1, keepdim=True) / squared * before
    return rest if drawn.shape[1] > 1 else drawn


def loss_line(
    surface: LossSurface,
    steps: Sequence[float],
    *,
    seed: int = 0,
    on_point: Callable[[int], None] = lambda _done: None,
) -> Line:
    """The loss along the first direction of ``seed``.

    Args:
        on_point: told how many losses were measured.
    """
    (direction,) = filter_normalised(surface.centres, 1, seed)
    losses = []
    for step in steps:
        losses.append(surface.loss_at(list(torch._foreach_mul(direction, step))))
        on_point(len(losses))
    return Line(tuple(steps), tuple(losses))


def loss_plane(
    surface: LossSurface,
    steps: Sequence[float],
    *,
    seed: int = 0,
    on_point: Callable[[int], None] = lambda _done: None,
) -> Plane:
    """The loss over the plane of two directions at right angles; the first is that of ``loss_line``."""
    across, up = filter_normalised(surface.centres, 2, seed)
    rows: list[tuple[float, ...]] = []
    for b in steps:
        row = []
        for a in steps:
            move = torch._foreach_mul(across, a)
            torch._foreach_add_(move, up, alpha=b)
            row.append(surface.loss_at(list(move)))
            on_point(len(rows) * len(steps) + len(row))
        rows.append(tuple(row))
    return Plane(tuple(steps), tuple(rows))
