"""The trained network and its deploy view in float64, with the numbers that training used in float32.

Computed anew in float64, a scale would differ from the trained one in its last bits, and a weight beside a
tie could get another code; neither says anything about deployment. So codes and scales stay those of float32,
and everything that is computed from them is exact.
"""

import copy
from typing import cast

import torch
from torch import Tensor, fx, nn

from saq_qat.errors import GateError
from saq_qat.quant.deploy.computed import computed_name, computed_values
from saq_qat.quant.deploy.integer_modules import IntegerLayer, constant_channels
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.layers import QuantLayer
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.inputs import quantizer_before

__all__ = ["widened_network", "with_unrounded_biases"]

_OFF_GRID = 1e-3


class _TrainedWeight(nn.Module):
    """In the place of a layer's weight quantizer: gives the codes that it gave, times their scale in float64.

    Attributes:
        integers: float64, the weight's shape.
        scale: 0-dim float64, the deviation of a normalised weight included where it is multiplied back.
    """

    integers: Tensor
    scale: Tensor

    def __init__(self, integers: Tensor, scale: Tensor, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale)

    def forward(self, v: Tensor) -> Tensor:
        return self.integers * self.scale

    def codes(self, v: Tensor) -> Tensor:
        return self.integers


@torch.no_grad()
def widened_network(network: fx.GraphModule) -> fx.GraphModule:
    """A float64 copy of a quantized network in evaluation mode that computes with its float32 grids.

    Biases of a deploy stage are those its float32 forward rounds.

    Raises:
        GateError: a trained layer computes with a weight that lies on no grid.
    """
    wide = copy.deepcopy(network).double().eval()
    for node in network.graph.nodes:
        module = graph.module_of(network, node)
        if isinstance(module, Quantizer):
            _place(cast(Quantizer, wide.get_submodule(str(node.target))), module)
        elif isinstance(module, QuantLayer):
            _fix(cast(QuantLayer, wide.get_submodule(str(node.target))), module, str(node.target))
            if module.folded and module.bias is not None:
                bias = _rounded_bias(network, node, module).double()
                cast(QuantLayer, wide.get_submodule(str(node.target))).bias = nn.Parameter(bias)
    return wide


def _place(wide: Quantizer, quantizer: Quantizer) -> None:
    """A product of a float32 and a small integer is exact in float64, and so is its quotient."""
    wide.alpha.copy_(quantizer.scale.double() * quantizer.grid.unit)


def _fix(wide: QuantLayer, layer: QuantLayer, path: str) -> None:
    quantizer = layer.weight_quantizer
    found = quantizer(layer.quantizer_input()).double() / quantizer.scale.double()
    integers = found.round()
    if bool(((found - integers).abs() > _OFF_GRID).any()):
        raise GateError(
            f"The weights of {path} must be codes times one scale, {float(quantizer.scale):g}; the trained "
            f"network computes with others, up to {float((found - integers).abs().max()):g} of a code beside "
            "them. Its quantizer's forward and its scale disagree: the network that was trained has no "
            "integers."
        )
    scale = quantizer.scale.double()
    if layer.rescale_std:
        scale = scale * layer.weight_deviation().double()
    fixed = _TrainedWeight(integers, scale, quantizer.grid)
    wide.weight_quantizer = cast(Quantizer, fixed)
    wide.normalize = wide.rescale_std = False


def _rounded_bias(network: fx.GraphModule, node: fx.Node, layer: QuantLayer) -> Tensor:
    quantizer = quantizer_before(network, node)
    if quantizer is None or len(node.args) < 2:
        return cast(Tensor, layer.bias).detach()
    return cast(Tensor, layer.integer_bias(quantizer.scale, quantizer.offset())).detach()


@torch.no_grad()
def with_unrounded_biases(
    view: fx.GraphModule, network: fx.GraphModule, widened: fx.GraphModule
) -> fx.GraphModule:
    """A float64 copy of a deploy view whose layers have the biases they had before rounding.

    What the network computes from its parameters alone is computed in float64. Where the network was trained
    with rounded biases (deploy stage), they stay as they are deployed.

    Args:
        widened: the network, by ``widened_network``.
    """
    wide = copy.deepcopy(view).double()
    for node, value in computed_values(widened).items():
        wide.register_buffer(computed_name(node), value)
    for path, module in wide.named_modules():
        if isinstance(module, IntegerLayer) and module.bias_scale is not None:
            trained = network.get_submodule(path)
            if not (isinstance(trained, QuantLayer) and trained.folded):
                _unround(module)
    return wide


def _unround(layer: IntegerLayer) -> None:
    """Channels that became constants, since their biases outgrew int32, are what they were before that."""
    before = layer.before_rounding
    constant = constant_channels(layer)
    shape = (-1, *[1] * (layer.weight.dim() - 1))
    layer.weight = torch.where(constant.reshape(shape), before.codes, layer.weight)
    layer.weight_scale = torch.where(constant, before.scale.double() * layer.factor, layer.weight_scale)
    layer.bias, layer.bias_scale = before.bias * layer.factor, None
