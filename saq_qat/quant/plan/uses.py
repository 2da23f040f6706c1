"""Uses of one weight: whatever they read, they agree on its codes."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, fx

from saq_qat.quant.plan.plan import LayerPlan

__all__ = ["one_weight_one_grid"]


def one_weight_one_grid(network: fx.GraphModule, layers: Sequence[LayerPlan]) -> list[LayerPlan]:
    """The plans of layers, with one grid and one normalisation for all that compute with one parameter.

    The smallest grid wins: an input of eight bits may not allow more. A weight that a use without BatchNorm
    needs at its own size keeps it everywhere.
    """
    uses: dict[Tensor, list[LayerPlan]] = {}
    weights = [network.get_submodule(layer.name).get_parameter("weight") for layer in layers]
    for weight, layer in zip(weights, layers, strict=True):
        uses.setdefault(weight, []).append(layer)
    return [_agreed(layer, uses[weight]) for weight, layer in zip(weights, layers, strict=True)]


def _agreed(layer: LayerPlan, uses: Sequence[LayerPlan]) -> LayerPlan:
    if len(uses) == 1:
        return layer
    narrowest = min(uses, key=lambda use: use.grid.maximum)
    normalize = all(use.normalize for use in uses)
    rescale = normalize and any(use.rescale_std for use in uses)
    return replace(
        layer, kind=narrowest.kind, bits=narrowest.bits, grid=narrowest.grid,
        initialise=narrowest.initialise, normalize=normalize, rescale_std=rescale,
    )  # fmt: skip  # one value a line is a page
