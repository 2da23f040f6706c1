"""Where rounding to a code is not decided by the real number: the width of rounding ties in float32.

A kernel rounds an accumulator a few times; a float32 evaluation of the same layer rounds every product and
partial sum besides; float operations pass the errors of what they read on, and add their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from saq_qat.quant.deploy import ops
from saq_qat.quant.deploy.integer_modules import IntegerConv2d, IntegerLayer, Quantize
from saq_qat.quant.deploy.kernels import is_integer_kernel, is_sum_of_codes, kernel_before
from saq_qat.quant.trace import graph
from saq_qat_export.proof.float_errors import float_error
from saq_qat_export.proof.float_operation import ROUNDING, UNIT_ROUNDOFF, FloatOperation, accumulated

__all__ = ["IN_FLOATS", "ONNX_RUNTIME", "OPENVINO", "ErrorBounds", "Rounding"]

Values = Mapping[fx.Node, Any]

_FLOAT64_ROUNDOFF = 2.0**-53
# Kernels scale an accumulator by float32 multipliers: at most four roundings of relative size 2^-24 stand
# between the real number that is rounded to a code and the one the kernel rounds. Twice that is the width
# within which a tie may fall either way.
_KERNEL_ROUNDINGS = 8
# In floats, each product reads two dequantized values and is rounded itself.
_PRODUCT_ROUNDINGS = 3


@dataclass(frozen=True)
class Rounding:
    """What an engine rounds in float32.

    Attributes:
        sums: of integer kernels too, as a graph for TensorRT is evaluated without an engine.
        products: sums of products of two activations.
        convolutions: not their sums, even where they write floats; elsewhere such a one is summed in float.
        shifted: codes are rounded after the zero point was added.
    """

    sums: bool = False
    products: bool = False
    convolutions: bool = False
    shifted: bool = False


ONNX_RUNTIME = Rounding()
IN_FLOATS = Rounding(sums=True)
OPENVINO = Rounding(products=True, convolutions=True, shifted=True)


def _without_nan(bound: Any) -> Any:
    """An unknown error times zero is unknown."""
    return torch.nan_to_num(bound, nan=torch.inf, posinf=torch.inf) if isinstance(bound, Tensor) else bound


class ErrorBounds:
    """How far a float32 evaluation may lie from the real numbers, value by value; computed when asked for.

    Args:
        values: of the view's nodes, in float64 for real numbers.
        rounding: of whatever evaluates it.
    """

    def __init__(self, view: fx.GraphModule, values: Values, rounding: Rounding) -> None:
        self._view, self._values, self._rounding = view, values, rounding
        self._order = {node: index for index, node in enumerate(view.graph.nodes)}
        self._shared: dict[fx.Node, Any] = {}

    def at_ties(self, quantize: fx.Node) -> Tensor:
        """Which elements of what ``quantize`` reads lie so near a half that either code is right."""
        module = graph.module_of(self._view, quantize)
        if not isinstance(module, Quantize):
            raise TypeError(f"{quantize.name} is no quantizer")
        (source,) = quantize.all_input_nodes
        value, width = self._values[source], self.of(source)
        kernel, _ = kernel_before(self._view, quantize)
        if not self._is_kernel(kernel):
            width = width + ROUNDING * value.abs()
        if self._rounding.shifted or is_sum_of_codes(self._view, kernel):
            width = width + _KERNEL_ROUNDINGS * UNIT_ROUNDOFF * module.zero_point * module.scale
        code = value / module.scale
        distance = (code - code.floor() - 0.5).abs()
        return torch.le(distance, width / module.scale)

    def spans(self, kernel: fx.Node, other: Tensor) -> Tensor:
        """Which floats of a kernel that rounds to no codes are as near to ``other`` as roundings can be.

        Where products cancel to an exact zero, even float64 leaves a remainder.
        """
        terms, size = _accumulated(self._view, self._values, kernel)
        width = self.of(kernel) + _FLOAT64_ROUNDOFF * terms * size
        return torch.le((self._values[kernel] - other).abs(), width)

    def of(self, node: fx.Node) -> Any:
        """Bound of the error of each element of ``node``; for a tuple of tensors, as many bounds."""
        bounds = dict(self._shared)
        for needed in sorted(self._missing(node), key=self._order.__getitem__):
            bounds[needed] = self._bound(needed, bounds)
        self._shared = {known: bound for known, bound in bounds.items() if len(known.users) > 1}
        return bounds[node]

    def _missing(self, node: fx.Node) -> set[fx.Node]:
        """The node and what its error depends on, less what is known."""
        found, waiting = set[fx.Node](), [node]
        while waiting:
            current = waiting.pop()
            if current not in found and current not in self._shared:
                found.add(current)
                waiting += self._sources(current)
        return found

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        """What hands its error on to ``node``: no parameters or sizes, and nothing to an integer kernel."""
        if node.target is ops.DEQUANTIZE or self._is_kernel(node):
            return []
        return [n for n in node.all_input_nodes if n.op != "get_attr" and _has_tensors(self._values[n])]

    def _bound(self, node: fx.Node, known: Mapping[fx.Node, Any]) -> Any:
        value = self._values[node]
        if node.op == "placeholder":
            return torch.zeros_like(value)
        if node.target is ops.DEQUANTIZE:
            return ROUNDING * value.abs()
        if self._is_kernel(node):
            return self._of_kernel(node)
        bounds = {source: known[source] for source in self._sources(node)}
        if isinstance(graph.module_of(self._view, node), IntegerLayer):
            return self._of_layer(node, bounds)
        return fx.node.map_aggregate(
            float_error(FloatOperation(self._view, node, self._values, bounds)), _without_nan
        )

    def _is_kernel(self, node: fx.Node) -> bool:
        """Whether a node's value is the sums of an integer kernel."""
        layer = graph.module_of(self._view, node) if self._rounding.convolutions else None
        reads_codes = isinstance(layer, IntegerLayer) and layer.bias_scale is not None
        return reads_codes or is_integer_kernel(self._view, node)

    def _of_kernel(self, kernel: fx.Node) -> Tensor:
        width = _KERNEL_ROUNDINGS * UNIT_ROUNDOFF * _kernel_size(self._view, self._values, kernel)
        in_float = self._rounding.products and graph.is_product(self._view, kernel)
        if self._rounding.sums or in_float:
            terms, size = _accumulated(self._view, self._values, kernel)
            width = width + (_PRODUCT_ROUNDINGS * UNIT_ROUNDOFF + accumulated(terms)) * size
        return width

    def _of_layer(self, node: fx.Node, bounds: Mapping[fx.Node, Tensor]) -> Tensor:
        """A layer that reads floats, or writes floats that were summed in float."""
        terms, size = _accumulated(self._view, self._values, node)
        handed_on = [_weighted(self._view, node, bound) for bound in bounds.values()]
        rounded = (_PRODUCT_ROUNDINGS * UNIT_ROUNDOFF + accumulated(terms)) * size
        return rounded + torch.as_tensor(sum(handed_on))


def _has_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (tuple, list)) and any(map(_has_tensors, value)))


def _kernel_size(view: fx.GraphModule, values: Values, kernel: fx.Node) -> Tensor:
    """Magnitude of what an integer kernel rounds."""
    layer = graph.module_of(view, kernel)
    if isinstance(layer, IntegerLayer):
        # products and bias may cancel, and the scale of the bias was rounded before
        return torch.abs(values[kernel]) + _per_channel(layer, layer.float_bias().abs(), values[kernel].dim())
    if is_sum_of_codes(view, kernel):
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


def _weighted(view: fx.GraphModule, node: fx.Node, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """A layer with the magnitudes of its weights."""
    layer = graph.module_of(view, node)
    if not isinstance(layer, IntegerLayer):
        raise TypeError(f"{node.name} is no layer")
    weight = layer.float_weight().abs()
    if not isinstance(layer, IntegerConv2d):
        return F.linear(x, weight, bias)
    window = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.conv2d(x, weight, bias, *window)


def _accumulated(view: fx.GraphModule, values: Values, source: fx.Node) -> tuple[int, Tensor]:
    """How many terms a sum has, and the sum of their magnitudes."""
    layer = graph.module_of(view, source)
    if isinstance(layer, IntegerLayer):
        x = values[source.all_input_nodes[0]].abs()
        return layer.weight[0].numel() + 1, _weighted(view, source, x, layer.float_bias().abs())
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
