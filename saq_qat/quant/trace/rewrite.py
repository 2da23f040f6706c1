"""Layers that a network calls as functions, made layers of torch.nn.

A subclass of a layer is traced through, since its forward may do anything; most call the function that the
layer itself would call. Only layers get quantizers, are folded, and follow training and evaluation.
"""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saq_qat.errors import LegalityError
from saq_qat.quant.trace.graph import is_shape_arithmetic
from saq_qat.quant.trace.modes import Arguments, FollowsMode, Input
from saq_qat.quant.trace.simplify import simplify

__all__ = ["FOLLOW_MODE", "ModeArguments", "arguments_of", "as_layers"]

ModeArguments = dict[fx.Node, Arguments]

_SIGNATURES: Mapping[Callable[..., Any], tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    F.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    F.scaled_dot_product_attention: (
        "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa",
    ),
}  # fmt: skip  # one value a line is a page
_DROPOUTS: Mapping[Callable[..., Any], Callable[[float], nn.Module]] = {
    F.dropout: nn.Dropout,
    torch.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
    F.alpha_dropout: nn.AlphaDropout,
    F.feature_alpha_dropout: nn.FeatureAlphaDropout,
}
_DROPOUT_SIGNATURE = ("input", "p", "training", "inplace")
_TENSORS = ("input", "weight", "bias", "running_mean", "running_var")
_CONVOLUTION: Mapping[str, Any] = {"stride": 1, "padding": 0, "dilation": 1}
FOLLOW_MODE = frozenset({*_DROPOUTS, F.batch_norm, F.scaled_dot_product_attention})


def arguments_of(node: fx.Node, given: Arguments | None = None) -> dict[str, Any]:
    """Arguments by name of a call of a function this module knows; those left out are missing.

    Args:
        given: positional and named arguments, if others than the node's own.
    """
    args, kwargs = (node.args, dict(node.kwargs)) if given is None else given
    names = _SIGNATURES.get(cast(Callable[..., Any], node.target), _DROPOUT_SIGNATURE)
    if node.target is torch.dropout:
        kwargs = {{"train": "training"}.get(name, name): value for name, value in kwargs.items()}
    return dict(zip(names, args, strict=False)) | kwargs


def as_layers(network: fx.GraphModule, model: nn.Module, in_training: ModeArguments) -> None:
    """Turn functions that compute with one layer's weight, and dropouts, into layers, in place.

    Identities and checks of shapes are dropped. Padding of a convolution that is no number of zeros becomes a
    step of its own, and a function that is called otherwise in training a module that follows the mode.

    Args:
        model: what was traced, which knows the classes of layers.
        in_training: what the functions that follow the mode are given in training.

    Raises:
        LegalityError: a dropout is on in evaluation too, or a layer has no weight of its own.
    """
    for node in list(network.graph.nodes):
        if node.op == "call_module":
            simplify(network, node)
        elif node.target in _DROPOUTS:
            _dropout(network, node, in_training[node])
        elif node.target is F.scaled_dot_product_attention:
            _attention_dropout(network, node, in_training[node])
        elif node.target is torch._assert and all(map(is_shape_arithmetic, node.all_input_nodes)):
            network.graph.erase_node(node)
        elif node.op == "call_function" and node.target in _SIGNATURES and _layer(network, model, node):
            continue
        elif node in in_training:
            _follow_mode(network, node, in_training[node])
    _drop_unread_tensors(network)


def _replace(network: fx.GraphModule, node: fx.Node, by: fx.Node) -> None:
    node.replace_all_uses_with(by)
    network.graph.erase_node(node)


def _dropout(network: fx.GraphModule, node: fx.Node, training: Arguments) -> None:
    rates = []
    for given in (None, training):
        found = arguments_of(node, given)
        rates.append(found.get("p", 0.5) if found.get("training", True) else 0.0)
    if rates[0]:
        raise LegalityError(
            f"A dropout is off in evaluation; {node.name} is on whatever the mode, with p={rates[0]}. "
            "Use nn.Dropout, or give the function training=self.training."
        )
    source = arguments_of(node)["input"]
    if rates[1]:
        layer = _DROPOUTS[cast(Callable[..., Any], node.target)](rates[1])
        network.add_submodule(f"{node.name}_layer", layer)
        with network.graph.inserting_before(node):
            source = network.graph.call_module(f"{node.name}_layer", (source,))
    _replace(network, node, source)


def _attention_dropout(network: fx.GraphModule, node: fx.Node, training: Arguments) -> None:
    """Hold a dropout layer ready where attention drops weights in training; ``decompose`` calls it."""
    if arguments_of(node).get("dropout_p", 0.0):
        raise LegalityError(
            f"Attention drops weights in training only; {node.name} has a dropout_p above 0 in evaluation. "
            "Give it dropout_p=p if self.training else 0.0."
        )
    rate = arguments_of(node, training).get("dropout_p", 0.0)
    if rate:
        network.add_submodule(f"{node.name}_dropout", nn.Dropout(rate))


def _layer(network: fx.GraphModule, model: nn.Module, node: fx.Node) -> bool:
    """Call a plain layer in place of a function whose tensors, but for its input, are parameters.

    A bias that is computed is added behind a linear layer.
    """
    found = arguments_of(node)
    settings = [value for name, value in found.items() if name not in _TENSORS]
    weight, bias = (_parameter(network, found.get(name)) for name in ("weight", "bias"))
    computed = found.get("bias") if bias is None else None
    known = weight is not None and (computed is None or node.target is F.linear)
    if not known or any(isinstance(value, fx.Node) for value in settings):
        return False
    owner = str(found["weight"].target).rpartition(".")[0]
    old = model.get_submodule(owner)
    layer = _plain(cast(Callable[..., Any], node.target), found, cast(nn.Parameter, weight), bias, old)
    if layer is None:
        return False
    layer.training = old.training
    path = _path_of(network, node, layer, owner if isinstance(old, type(layer)) else None)
    network.set_submodule(path, layer)
    with network.graph.inserting_before(node):
        result = network.graph.call_module(path, (found["input"],))
        if computed is not None:
            result = network.graph.call_function(torch.add, (result, computed))
        _replace(network, node, result)
    return True


def _path_of(network: fx.GraphModule, node: fx.Node, layer: nn.Module, owner: str | None) -> str:
    """The owner's path, or one below if the owner holds more: an activation, or a tensor used elsewhere."""
    if owner is None:
        return f"{node.name}_layer"
    holder = network.get_submodule(owner)
    tensors = {name for name, _ in chain(holder.named_parameters(), holder.named_buffers())}
    holds_more = next(holder.children(), None) is not None or tensors - layer.state_dict().keys()
    return f"{owner}.layer" if holds_more else owner


def _parameter(network: fx.GraphModule, node: object) -> nn.Parameter | None:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner, _, name = str(node.target).rpartition(".")
    found = getattr(network.get_submodule(owner), name)
    return found if isinstance(found, nn.Parameter) else None


def _plain(
    function: Callable[..., Any],
    found: Mapping[str, Any],
    weight: nn.Parameter,
    bias: nn.Parameter | None,
    old: nn.Module,
) -> nn.Module | None:
    """The layer of torch.nn that computes what the function does; None if there is none."""
    layer: nn.Module
    if function is F.linear:
        layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    elif function is F.conv2d:
        groups = found.get("groups", 1)
        channels, kernel = (
            (weight.shape[1] * groups, weight.shape[0]),
            cast(tuple[int, int], weight.shape[2:]),
        )
        settings = {name: found.get(name, value) for name, value in _CONVOLUTION.items()}
        layer = nn.Conv2d(*channels, kernel, groups=groups, device="meta", **settings)
    elif isinstance(old, _BatchNorm):
        kind: Any = next(kind for kind in type(old).__mro__ if kind.__module__.startswith("torch.nn"))
        layer = kind(
            old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats, device="meta"
        )
        for name, buffer in old.named_buffers(recurse=False):
            layer.register_buffer(name, buffer)
    else:
        return None
    layer.register_parameter("weight", weight)
    layer.register_parameter("bias", bias)
    return layer


def _follow_mode(network: fx.GraphModule, node: fx.Node, training: Arguments) -> None:
    """A function that gets other arguments in training, such as ``training=self.training``, as a module."""
    inputs: list[fx.Node] = []

    def numbered(argument: fx.Node) -> Any:
        if argument not in inputs:
            inputs.append(argument)
        return Input(inputs.index(argument))

    evaluation: Any = fx.map_arg((node.args, dict(node.kwargs)), numbered)
    in_training: Any = fx.map_arg(training, numbered)
    module = FollowsMode(cast(Callable[..., Any], node.target), evaluation, in_training)
    network.add_submodule(f"{node.name}_call", module)
    with network.graph.inserting_before(node):
        call = network.graph.call_module(f"{node.name}_call", tuple(inputs))
    _replace(network, node, call)


def _drop_unread_tensors(network: fx.GraphModule) -> None:
    """Parameters and buffers that layers took over: each has one name."""
    network.graph.eliminate_dead_code()
    read = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    layers = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    tensors = chain(
        network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False)
    )
    for name, _ in list(tensors):
        if name not in read and not any(name.startswith(f"{layer}.") for layer in layers):
            owner, _, last = name.rpartition(".")
            delattr(network.get_submodule(owner), last)
