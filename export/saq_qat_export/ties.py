"""Where rounding to a code is not decided by the real number: the width of rounding ties in float32.

A kernel rounds an accumulator a few times; a float32 evaluation of the same layer rounds every product and
partial sum besides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from saq_qat.quant import graph, ops
from saq_qat.quant.integer_modules import IntegerConv2d, IntegerLayer, Quantize

__all__ = ["TieWindow"]

_UNIT_ROUNDOFF = 2.0**-24
# Kernels scale an accumulator by float32 multipliers: at most four roundings of relative size 2^-24 stand
# between the real number that is rounded to a code and the one the kernel rounds. Twice that is the width
# within which a tie may fall either way.
_KERNEL_ROUNDINGS = 8
# In floats, each product reads two dequantized values and is rounded itself.
_PRODUCT_ROUNDINGS = 3


@dataclass(frozen=True)
class TieWindow:
    """How near a half, in codes, a value may lie before arithmetic of the size that occurred turns it.

    Attributes:
        accumulation: 0 for integer accumulators. The sum of K terms in float32 is off by no more than
            ``accumulation * sqrt(K) * 2^-24`` times the sum of their magnitudes, but for a probability that
            falls with the square of ``accumulation`` in the exponent (lambda in Higham and Mary, A New
            Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41(5), 2019).
    """

    accumulation: float = 0.0

    def holds(self, view: fx.GraphModule, values: Mapping[fx.Node, Any], quantize: fx.Node) -> Tensor:
        """Which elements of what ``quantize`` reads lie within the window.

        Args:
            values: of the nodes before it, in float64 for real numbers.
        """
        source, module = quantize.all_input_nodes[0], graph.module_of(view, quantize)
        if not isinstance(module, Quantize):
            raise TypeError(f"{quantize.name} is no quantizer")
        value = values[source] / module.scale
        width = _KERNEL_ROUNDINGS * _kernel_size(view, values, source, module)
        if self.accumulation:
            terms, size = _accumulated(view, values, source)
            roundings = _PRODUCT_ROUNDINGS + self.accumulation * sqrt(terms)
            width = width + roundings * size / module.scale
        distance = (value - value.floor() - 0.5).abs()
        return torch.le(distance, _UNIT_ROUNDOFF * width)


def _kernel_size(
    view: fx.GraphModule, values: Mapping[fx.Node, Any], source: fx.Node, module: Quantize
) -> Tensor:
    """Magnitude, in codes, of what an integer kernel rounds."""
    size = torch.div(values[source], module.scale).abs()
    layer = graph.module_of(view, source)
    if isinstance(layer, IntegerLayer):
        # products and bias may cancel, and the scale of the bias was rounded before
        bias = layer.float_bias().abs() / module.scale
        return size + bias.reshape(-1, *[1] * (size.dim() - 2))
    terms = source.all_input_nodes
    if graph.is_add(view, source) and len(terms) == 2 and all(t.target is ops.DEQUANTIZE for t in terms):
        # the kernel adds stored codes, zero points included
        first, second = (_stored_size(values, term) / module.scale for term in terms)
        return first + second + module.zero_point
    return size


def _stored_size(values: Mapping[fx.Node, Any], dequantize: Any) -> Tensor:
    """Magnitudes of dequantized codes and of their zero point."""
    _, scale, zero_point = dequantize.args
    return torch.add(values[dequantize].abs(), values[scale] * zero_point)


def _accumulated(view: fx.GraphModule, values: Mapping[fx.Node, Any], source: fx.Node) -> tuple[int, Tensor]:
    """How many terms a sum has, and the sum of their magnitudes."""
    layer = graph.module_of(view, source)
    if isinstance(layer, IntegerLayer):
        weight, bias = layer.float_weight().abs(), layer.float_bias().abs()
        x = values[source.all_input_nodes[0]].abs()
        terms = weight[0].numel() + 1
        if not isinstance(layer, IntegerConv2d):
            return terms, F.linear(x, weight, bias)
        window = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return terms, F.conv2d(x, weight, bias, *window)
    if source.target is ops.GLOBAL_AVERAGE_POOL:
        x = values[source.all_input_nodes[0]]
        return x.shape[2] * x.shape[3], x.abs().mean((2, 3), keepdim=True)
    if graph.is_add(view, source):
        magnitudes = [values[term].abs() for term in source.all_input_nodes]
        return len(magnitudes), torch.as_tensor(sum(magnitudes))
    return 1, torch.as_tensor(values[source]).abs()
