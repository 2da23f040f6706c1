"""What forward computes from numbers alone, such as a grid of coordinates: computed once, kept as buffers."""

import operator
from typing import Any

import torch
from torch import Tensor, fx

from saq_qat.quant.trace.operations import called_name

__all__ = ["fold_constants", "is_device", "is_random"]

_MADE = "_tensor_constant"


def fold_constants(network: fx.GraphModule) -> None:
    """Replace every tensor that depends on no image, parameter or buffer by a buffer, in place.

    The device of an image is no part of a value: buffers follow their network to any.
    """
    values: dict[fx.Node, Any] = {}
    for node in network.graph.nodes:
        if is_device(node):
            values[node] = torch.device("cpu")
        elif node.op == "get_attr" and str(node.target).startswith(_MADE):
            values[node] = operator.attrgetter(str(node.target))(network)
        elif node.op in ("call_function", "call_method") and _is_fixed(node, values):
            values[node] = _evaluated(node, values)
    for node, value in values.items():
        is_read = any(user not in values for user in node.users)
        if isinstance(value, Tensor) and node.op != "get_attr" and is_read:
            _become_buffer(network, node, value)


def is_device(node: fx.Node) -> bool:
    """Asks a tensor where it is."""
    return node.op == "call_function" and node.target is getattr and str(node.args[1]) == "device"


def _is_fixed(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    return set(node.all_input_nodes) <= values.keys() and not is_random(node)


def is_random(node: fx.Node) -> bool:
    """Whether a function or method draws numbers, or only checks some."""
    name = called_name(node)
    draws = any(word in name for word in ("rand", "bernoulli", "dropout", "_assert"))
    return draws or name.strip("_") == "normal"


@torch.no_grad()
def _evaluated(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda term: values[term])
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]  # of a call_function


def _become_buffer(network: fx.GraphModule, node: fx.Node, value: Tensor) -> None:
    name = f"{node.name}_constant"
    network.register_buffer(name, value.detach().clone().contiguous())
    with network.graph.inserting_before(node):
        constant = network.graph.get_attr(name)
    node.replace_all_uses_with(constant)
    network.graph.erase_node(node)
