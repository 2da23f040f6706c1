"""Powers of two that a network multiplies a layer's result by, such as attention's scale."""

import math
import operator

import torch
from torch import fx

from saq_qat.quant.deploy.integer_modules import IntegerLinear
from saq_qat.quant.trace import graph

__all__ = ["fold_factors"]

_PRODUCTS = (operator.mul, torch.mul, "mul")
_QUOTIENTS = (operator.truediv, torch.div, "div")


def fold_factors(view: fx.GraphModule) -> None:
    """Let linear layers of a deploy view write what is multiplied or divided by a power of two, in place.

    The query of attention is one where heads have 16, 64 or 256 features. A scale times a power of two rounds
    as the scale does, and so does every product with it: codes and floats are those of the multiplication,
    which is gone.
    """
    for node in list(view.graph.nodes):
        factor = _power_of_two(node)
        layer = None if factor is None else _layer_before(view, node.all_input_nodes[0])
        if factor is not None and layer is not None and _holds(layer, factor):
            _multiply(layer, factor)
            node.replace_all_uses_with(node.all_input_nodes[0])
            view.graph.erase_node(node)
    view.recompile()


def _power_of_two(node: fx.Node) -> float | None:
    """The factor of a multiplication by a number, if it is exact in every format: 0.125, 2.0, not 0.1."""
    if node.target not in (*_PRODUCTS, *_QUOTIENTS) or len(node.args) != 2 or node.kwargs:
        return None
    numbers = [term for term in node.args if isinstance(term, (int, float))]
    if len(numbers) != 1 or (node.target in _QUOTIENTS and numbers[0] is node.args[0]):
        return None
    number = float(numbers[0])
    if not math.isfinite(number) or number <= 0 or math.frexp(number)[0] != 0.5:
        return None
    return 1 / number if node.target in _QUOTIENTS else number


def _layer_before(view: fx.GraphModule, node: fx.Node) -> IntegerLinear | None:
    """The layer that computes ``node``, if nothing else reads what it writes, and it is called once."""
    if len([reader for reader in node.users if not graph.is_shape_query(reader)]) != 1:
        return None
    if graph.is_reshape(view, node):
        return _layer_before(view, node.all_input_nodes[0])
    module = graph.module_of(view, node)
    calls = [other for other in view.graph.nodes if other.op == node.op and other.target == node.target]
    return module if isinstance(module, IntegerLinear) and len(calls) == 1 else None


def _holds(layer: IntegerLinear, factor: float) -> bool:
    """Whether its scales stay normal numbers of float32."""
    limits = torch.finfo(torch.float32)
    scales = [scale for scale in (layer.weight_scale, layer.bias_scale) if scale is not None]
    used = [scale[scale != 0].abs().double() * factor for scale in scales]
    return all(bool(((scale >= limits.tiny) & (scale <= limits.max)).all()) for scale in used)


def _multiply(layer: IntegerLinear, factor: float) -> None:
    """Codes, of weights and of biases, stay what they are; a bias that has none is a float of the result."""
    layer.weight_scale.mul_(factor)
    (layer.bias if layer.bias_scale is None else layer.bias_scale).mul_(factor)
    layer.factor *= factor
