"""What a kind of quantizer is: its grids, what it learns, and how gradients pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from saq_qat.quant.numerics.functional import fake_quantize
from saq_qat.quant.numerics.grid import Grid

__all__ = ["ActivationGrid", "FakeQuantize", "Kind", "WeightGrid"]

WeightGrid = Callable[[int, bool], Grid]
"""From bits, and whether 8 bits keep all levels as in the papers, to the grid of a weight."""

ActivationGrid = Callable[[int, bool, bool], Grid]
"""From bits, whether values can be negative, and whether 8 bits keep all levels, to that of an activation."""


class FakeQuantize(Protocol):
    """Values on the grid with the straight-through gradients of a kind; as ``functional.fake_quantize``."""

    def __call__(
        self,
        x: Tensor,
        alpha: Tensor,
        grid: Grid,
        *,
        beta: Tensor | None = None,
        gradient_scale: float = 1.0,
        counts_from_zero: bool = False,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Kind:
    """One way to quantize: codes are computed alike for all, on the grids and with the gradients of the kind.

    Attributes:
        name: as recipes write it.
        weight_grid, activation_grid: None where the kind is not for these.
        learns: what ``alpha`` is; nothing: it stays where it was initialised.
        normalizes: convolution weights are normalised first, unless the recipe says otherwise.
        follows_paper: ``quant.grid: paper`` keeps its grid as published, whatever kernels make of it.
        decays: its clip levels decay as weights do, unless the recipe says otherwise.
        prepare: from a weight and alpha to what is quantized, differentiable; None: the weight itself.
        fake_quantize: forward and backward.
    """

    name: str
    weight_grid: WeightGrid | None = None
    activation_grid: ActivationGrid | None = None
    learns: Literal["clip level", "step size", "nothing"] = "clip level"
    normalizes: bool = True
    follows_paper: bool = True
    decays: bool = False
    prepare: Callable[[Tensor, Tensor], Tensor] | None = None
    fake_quantize: FakeQuantize = fake_quantize

    @property
    def learns_step(self) -> bool:
        """Whether alpha is a step size (LSQ), which has a floor and a gradient scale of its own."""
        return self.learns == "step size"
