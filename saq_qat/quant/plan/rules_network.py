"""Rules of every target: weights and products that no quantizer can reach, because no layer holds them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from saq_qat.quant.plan.edges import edge_finding
from saq_qat.quant.plan.plan import Finding
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.modes import FollowsMode

__all__ = ["findings"]

_LAYERS: tuple[Callable[..., object], ...] = (
    F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d,
    F.conv_transpose3d, F.multi_head_attention_forward,
)  # fmt: skip  # one value a line is a page
_CONVOLUTIONS, _GROUPS = (F.conv1d, F.conv2d, F.conv3d), 6
_PRODUCTS: tuple[Callable[..., object], ...] = (F.scaled_dot_product_attention, torch.einsum, torch.baddbmm)
_MATRIX_PRODUCTS = ("matmul", "bmm", "mm", "addmm", "__matmul__")


def findings(network: fx.GraphModule) -> list[Finding]:
    """What stays float though it multiplies matrices, a finding for each kind of it, in the graph's order.

    Behind them, which layers are the edges.
    """
    found: dict[tuple[str, str], list[_Float]] = {}
    for node in network.graph.nodes:
        float_part = _float_part(network, node)
        if float_part is not None:
            found.setdefault((float_part.rule, float_part.kind), []).append(float_part)
    refused = [found for node in network.graph.nodes for found in _never_deployed(network, node)]
    return [*refused, *(_finding(parts) for parts in found.values()), *edge_finding(network)]


def _never_deployed(network: fx.GraphModule, node: fx.Node) -> Iterator[Finding]:
    """Layers whose deployed form computes something else than the trained one."""
    module = graph.module_of(network, node)
    kind = type(module).__name__
    if node.op == "call_function" and node.target in _CONVOLUTIONS and _groups_of_the_batch(node):
        yield _refused(
            node.name,
            f"{_name(node.target)} has as many groups as there are images, so that each image has weights of "
            "its own, and no target runs such a layer.",
            "Mix the results of layers with weights of their own instead of the weights.",
        )
    if isinstance(module, _BatchNorm) and not module.track_running_stats:
        yield _refused(
            str(node.target),
            f"{kind} without running statistics computes with those of each batch, so an image's answer "
            "would depend on the images beside it.",
            "Build it with track_running_stats=True, or take GroupNorm.",
        )
    if isinstance(module, _InstanceNorm) and module.track_running_stats:
        yield _refused(
            str(node.target),
            f"{kind} with running statistics computes with one image's in training and with others when it "
            "is deployed.",
            "Build it with track_running_stats=False, or take BatchNorm.",
        )


def _refused(where: str, message: str, fix: str) -> Finding:
    return Finding("NET004", "error", where, message, fix)


@dataclass(frozen=True)
class _Float:
    """A node that multiplies in float: the rule it breaks, what it calls, its weights by name."""

    rule: str
    node: str
    kind: str
    weights: tuple[tuple[str, tuple[int, ...]], ...] = ()


def _float_part(network: fx.GraphModule, node: fx.Node) -> _Float | None:
    if node.op not in ("call_module", "call_function", "call_method") or graph.is_weighted(network, node):
        return None
    module = graph.module_of(network, node)
    function = module.function if isinstance(module, FollowsMode) else node.target
    kind = _name(type(module) if module is not None and function is node.target else function)
    weights = tuple(_weights(network, node, module))
    if function in _PRODUCTS and not weights:
        return _Float("NET002", node.name, kind)
    holds = bool(weights) and (module is not None or _may_multiply(function))
    if isinstance(module, nn.LayerNorm) or not (holds or function in _LAYERS):
        return None
    return _Float("NET001", node.name, kind, weights)


def _groups_of_the_batch(node: fx.Node) -> bool:
    groups = node.kwargs.get("groups", node.args[_GROUPS] if len(node.args) > _GROUPS else 1)
    return isinstance(groups, fx.Node)


def _finding(parts: list[_Float]) -> Finding:
    first, times = parts[0], f" ({len(parts)} times)" if len(parts) > 1 else ""
    if first.rule == "NET002":
        return Finding(
            "NET002", "warning", first.node,
            f"{first.kind}{times} multiplies activations in float: only products of two tensors get codes.",
            "Write it as torch.matmul of two tensors; F.scaled_dot_product_attention and torch.einsum are "
            "taken apart where they are attention without a causal mask, or one product of matrices.",
        )  # fmt: skip  # one value a line is a page
    shapes = ", ".join(f"{name} {shape}" for name, shape in first.weights[:2]) or "computed ones"
    return Finding(
        "NET001", "warning", first.node,
        f"{first.kind}{times} computes with float weights ({shapes}): quantizers are for Conv2d and Linear "
        "layers that the network calls themselves.",
        "Write it with nn.Conv2d or nn.Linear in forward, or take a variant of the network that does; as it "
        "is, it runs and ships as floats.",
    )  # fmt: skip  # one value a line is a page


def _weights(
    network: fx.GraphModule, node: fx.Node, module: nn.Module | None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the matrices among a node's parameters."""
    for name, parameter in () if module is None else module.named_parameters():
        if parameter.dim() > 1:
            yield f"{node.target}.{name}", tuple(parameter.shape)
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            owner, _, name = str(source.target).rpartition(".")
            tensor = getattr(network.get_submodule(owner), name)
            if isinstance(tensor, nn.Parameter) and tensor.dim() > 1:
                yield str(source.target), tuple(tensor.shape)


def _may_multiply(function: object) -> bool:
    """A product of matrices, or a function of other origin than torch, which may do anything."""
    if isinstance(function, str):
        return function in _MATRIX_PRODUCTS
    origin = str(getattr(function, "__module__", None) or "torch")
    is_known = origin.split(".")[0] in ("torch", "_operator", "builtins", "math", "saq_qat")
    return not is_known or getattr(function, "__name__", "") in (*_MATRIX_PRODUCTS, "einsum")


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", cast(object, function)))
