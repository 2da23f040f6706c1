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
from saq_qat_export.view_graph import kernel_before

__all__ = ["TieWindow"]

Values = Mapping[fx.Node, Any]

_UNIT_ROUNDOFF = 2.0**-24
_FLOAT64_ROUNDOFF = 2.0**-53
# Kernels scale an accumulator by float32 multipliers: at most four roundings of relative size 2^-24 stand
# between the real number that is rounded to a code and the one the kernel rounds. Twice that is the width
# within which a tie may fall either way.
_KERNEL_ROUNDINGS = 8
# In floats, each product reads two dequantized values and is rounded itself.
_PRODUCT_ROUNDINGS = 3


@dataclass(frozen=True)
class TieWindow:
    """How near a half a value may lie before arithmetic of the size that occurred turns its code.

    Where a kernel writes floats, how far apart two evaluations of it may be.

    Attributes:
        accumulation: 0 for integer accumulators. The sum of K terms in float32 is off by no more than
            ``accumulation * sqrt(K) * 2^-24`` times the sum of their magnitudes, but for a probability that
            falls with the square of ``accumulation`` in the exponent (lambda in Higham and Mary, A New
            Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41(5), 2019).
    """

    accumulation: float = 0.0

    def holds(self, view: fx.GraphModule, values: Values, quantize: fx.Node) -> Tensor:
        """Which elements of what ``quantize`` reads lie within the window.

        Args:
            values: of the nodes before it, in float64 for real numbers.
        """
        module = graph.module_of(view, quantize)
        if not isinstance(module, Quantize):
            raise TypeError(f"{quantize.name} is no quantizer")
        kernel, carriers = kernel_before(view, quantize)
        zero_point = module.zero_point * module.scale if _is_sum_of_codes(view, kernel) else 0
        width = self._width(view, values, kernel, zero_point)
        for carrier in carriers:
            width = _replay(view, values, carrier, width)
        code = values[quantize.all_input_nodes[0]] / module.scale
        distance = (code - code.floor() - 0.5).abs()
        return torch.le(distance, width / module.scale)

    def spans(self, view: fx.GraphModule, values: Values, kernel: fx.Node, other: Tensor) -> Tensor:
        """Which floats of a kernel that rounds to no codes are within the window of ``other``.

        Where products cancel to an exact zero, even float64 leaves a remainder.
        """
        terms, size = _accumulated(view, values, kernel)
        width = self._width(view, values, kernel, 0) + _FLOAT64_ROUNDOFF * terms * size
        return torch.le((values[kernel] - other).abs(), width)

    def _width(
        self, view: fx.GraphModule, values: Values, kernel: fx.Node, zero_point: Tensor | int
    ) -> Tensor:
        """How far roundings may move each element of what a kernel computes."""
        width = _KERNEL_ROUNDINGS * (_kernel_size(view, values, kernel) + zero_point)
        if self.accumulation:
            terms, size = _accumulated(view, values, kernel)
            width = width + (_PRODUCT_ROUNDINGS + self.accumulation * sqrt(terms)) * size
        return _UNIT_ROUNDOFF * width


def _replay(view: fx.GraphModule, values: Values, carrier: fx.Node, moved: Tensor) -> Tensor:
    """What a carrier makes of another tensor than the one it read."""
    source = carrier.all_input_nodes[0]
    arguments, keywords = fx.node.map_arg(
        (carrier.args, carrier.kwargs), lambda node: moved if node is source else values[node]
    )
    result: Tensor = getattr(fx.Interpreter(view), carrier.op)(carrier.target, arguments, keywords)
    return result


def _is_sum_of_codes(view: fx.GraphModule, node: fx.Node) -> bool:
    terms = node.all_input_nodes
    return graph.is_add(view, node) and len(terms) == 2 and all(t.target is ops.DEQUANTIZE for t in terms)


def _kernel_size(view: fx.GraphModule, values: Values, kernel: fx.Node) -> Tensor:
    """Magnitude of what an integer kernel rounds."""
    layer = graph.module_of(view, kernel)
    if isinstance(layer, IntegerLayer):
        # products and bias may cancel, and the scale of the bias was rounded before
        return torch.abs(values[kernel]) + _per_channel(layer, layer.float_bias().abs(), values[kernel].dim())
    if _is_sum_of_codes(view, kernel):
        # the kernel adds stored codes, zero points included
        first, second = (_stored_size(values, term) for term in kernel.all_input_nodes)
        return first + second
    return torch.as_tensor(values[kernel]).abs()


def _per_channel(layer: IntegerLayer, numbers: Tensor, axes: int) -> Tensor:
    """Numbers (out,) along the channels of a layer's result."""
    return numbers.reshape(-1, *[1] * (axes - 2)) if isinstance(layer, IntegerConv2d) else numbers


def _stored_size(values: Values, dequantize: Any) -> Tensor:
    """Magnitudes of dequantized codes and of their zero point."""
    _, scale, zero_point = dequantize.args
    return torch.add(values[dequantize].abs(), values[scale] * zero_point)


def _accumulated(view: fx.GraphModule, values: Values, source: fx.Node) -> tuple[int, Tensor]:
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
    if graph.is_product(view, source):
        a, b = (values[term].abs() for term in source.args if isinstance(term, fx.Node))
        return a.shape[-1], a @ b
    if source.target is ops.GLOBAL_AVERAGE_POOL:
        x = values[source.all_input_nodes[0]]
        return x.shape[2] * x.shape[3], x.abs().mean((2, 3), keepdim=True)
    if graph.is_add(view, source):
        magnitudes = [values[term].abs() for term in source.all_input_nodes]
        return len(magnitudes), torch.as_tensor(sum(magnitudes))
    return 1, torch.as_tensor(values[source]).abs()
