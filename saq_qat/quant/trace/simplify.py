"""Layers as quantization knows them: padding in numbers of zeros, weights that learn, no identities."""

import copy
import math
from typing import Any, cast

import torch.nn.functional as F
from torch import fx, nn
from torch.nn.parameter import UninitializedParameter

from saq_qat.errors import LegalityError
from saq_qat.quant.trace.graph import is_max_pool, is_nonnegative

__all__ = ["pad_maxima_by_zeros", "simplify"]


def simplify(network: fx.GraphModule, node: fx.Node) -> None:
    """Drop a call of an identity, and give a convolution that pads otherwise zeros in numbers; in place.

    Raises:
        LegalityError: a convolution or linear layer computes its weight, or has none yet.
    """
    module = network.get_submodule(str(node.target))
    if isinstance(module, nn.Identity):
        node.replace_all_uses_with(node.all_input_nodes[0])
        network.graph.erase_node(node)
    elif isinstance(module, (nn.Conv2d, nn.Linear)):
        _check_weight(str(node.target), module)
    if isinstance(module, nn.Conv2d) and (isinstance(module.padding, str) or module.padding_mode != "zeros"):
        network.set_submodule(str(node.target), _padded_by_numbers(network, node, module))


def pad_maxima_by_zeros(network: fx.GraphModule) -> None:
    """Pad what is never negative by 0 where it is padded by -inf for a maximum to ignore; in place.

    Both give the same maximum wherever it is taken over one number of the tensor at least, and -inf has no
    code.
    """
    for node in network.graph.nodes:
        value = node.kwargs.get("value", node.args[3] if len(node.args) > 3 else None)
        if node.target is not F.pad or value != -math.inf or not is_nonnegative(network, node.args[0]):
            continue
        if all(is_max_pool(network, reader) for reader in node.users):
            node.args = node.args[:3]
            node.update_kwarg("value", 0.0)


def _check_weight(path: str, layer: nn.Conv2d | nn.Linear) -> None:
    weight = dict(layer.named_parameters(recurse=False)).get("weight")
    if weight is None or isinstance(weight, UninitializedParameter):
        raise LegalityError(
            f"A quantized layer learns its weight; {path} ({type(layer).__name__}) "
            + ("computes it from others." if weight is None else "has none before it sees an image.")
            + " Remove weight or spectral normalisation (nn.utils.parametrize.remove_parametrizations), and "
            "give lazy layers their sizes."
        )


def _padded_by_numbers(network: fx.GraphModule, node: fx.Node, conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution with symmetric zeros as numbers, or without padding behind a node that pads."""
    plain: Any = copy.copy(conv)
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    plain.padding_mode = "zeros"
    if conv.padding_mode == "zeros" and (left, top) == (right, bottom):
        plain.padding = (top, left)
    else:
        plain.padding = (0, 0)
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        with network.graph.inserting_before(node):
            padded = network.graph.call_function(
                F.pad, (node.all_input_nodes[0], (left, right, top, bottom)), {"mode": mode}
            )
        node.replace_input_with(node.all_input_nodes[0], padded)
    return cast(nn.Conv2d, plain)
