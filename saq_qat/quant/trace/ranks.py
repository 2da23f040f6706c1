"""How many axes a value of a traced network has, read from the graph: a BatchNorm normalises axis 1.

A network takes images (N, C, H, W). Operations that are not known here give no answer, and nobody guesses.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

__all__ = ["rank_of"]

_IMAGE_RANK = 4
_RESHAPES = ("reshape", "view")
_KEEPS_RANK = (
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "add", "avg_pool1d", "avg_pool2d", "cat", "clamp", "clone",
    "concat", "contiguous", "div", "dropout", "elu", "expand_as", "float", "gelu", "hardsigmoid", "hardswish",
    "hardtanh", "iadd", "imul", "leaky_relu", "matmul", "max_pool1d", "max_pool2d", "mish", "mul", "pad",
    "permute", "relu", "relu6", "roll", "sigmoid", "silu", "softmax", "sub", "swapaxes", "tanh", "transpose",
    "truediv", "upsample", "interpolate",
)  # fmt: skip  # one value a line is a page


def rank_of(network: fx.GraphModule, node: fx.Node) -> int | None:
    """Number of axes of the tensor that ``node`` computes; None if the graph does not tell."""
    ranks: dict[fx.Node, int | None] = {}
    for current in network.graph.nodes:
        ranks[current] = _rank(network, current, ranks)
        if current is node:
            break
    return ranks[node]


def _rank(network: fx.GraphModule, node: fx.Node, ranks: dict[fx.Node, int | None]) -> int | None:
    if node.op == "placeholder":
        return _IMAGE_RANK
    if node.op == "get_attr":
        return _rank_of_attribute(network, str(node.target))
    if node.op == "call_module":
        return _rank_behind_layer(network.get_submodule(str(node.target)), _first(node, ranks))
    rule = _RULES.get(_name(node))
    if rule is not None:
        return rule(node, _first(node, ranks))
    return _largest(node, ranks) if _name(node) in _KEEPS_RANK else None


def _name(node: fx.Node) -> str:
    return str(node.target if node.op == "call_method" else getattr(node.target, "__name__", "")).strip("_")


def _first(node: fx.Node, ranks: dict[fx.Node, int | None]) -> int | None:
    return ranks[node.all_input_nodes[0]] if node.all_input_nodes else None


def _largest(node: fx.Node, ranks: dict[fx.Node, int | None]) -> int | None:
    """Of everything that is read, as tensors broadcast."""
    found = [ranks[term] for term in node.all_input_nodes]
    known = [rank for rank in found if rank is not None]
    return max(known) if known and len(known) == len(found) else None


def _rank_of_attribute(network: fx.GraphModule, path: str) -> int | None:
    owner, _, name = path.rpartition(".")
    found = getattr(network.get_submodule(owner), name)
    return found.dim() if isinstance(found, torch.Tensor) else None


def _rank_behind_layer(layer: nn.Module, rank: int | None) -> int | None:
    if isinstance(layer, nn.Flatten):
        return _flattened(rank, layer.start_dim, layer.end_dim)
    if isinstance(layer, nn.Unflatten):
        return None if rank is None else rank + len(tuple(layer.unflattened_size)) - 1
    own = type(layer).__module__.split(".")[0] in ("torch", "saq_qat")
    return rank if own and not isinstance(layer, (nn.RNNBase, nn.Embedding, nn.MultiheadAttention)) else None


def _flattened(rank: int | None, start: Any, end: Any) -> int | None:
    if rank is None or not isinstance(start, int) or not isinstance(end, int):
        return None
    return rank - (end % rank - start % rank)


def _argument(node: fx.Node, position: int, names: Sequence[str], default: Any) -> Any:
    named = next((node.kwargs[name] for name in names if name in node.kwargs), default)
    return node.args[position] if len(node.args) > position else named


def _flatten(node: fx.Node, rank: int | None) -> int | None:
    return _flattened(rank, _argument(node, 1, ("start_dim",), 0), _argument(node, 2, ("end_dim",), -1))


def _reshape(node: fx.Node, _: int | None) -> int | None:
    sizes = node.args[1:] or (node.kwargs.get("shape", node.kwargs.get("size")),)
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        return len(sizes[0])
    return len(sizes) if all(isinstance(size, int) or _is_size(size) for size in sizes) else None


def _is_size(value: object) -> bool:
    """A number computed from shapes, and not a shape itself."""
    if not isinstance(value, fx.Node):
        return False
    if value.op == "call_method" and value.target == "size":
        return len(value.args) > 1 or bool(value.kwargs)
    if value.op != "call_function" or value.target is getattr:
        return False
    if value.target is operator.getitem:
        return isinstance(value.args[1], int)
    return all(isinstance(term, int) or _is_size(term) for term in value.args)


def _mean(node: fx.Node, rank: int | None) -> int | None:
    axes = _argument(node, 1, ("dim", "axis"), None)
    if axes is None:
        return 0
    if rank is None or _argument(node, 2, ("keepdim", "keepdims"), False):
        return rank
    return rank - (len(axes) if isinstance(axes, (tuple, list)) else 1)


def _unsqueeze(_: fx.Node, rank: int | None) -> int | None:
    return None if rank is None else rank + 1


def _squeeze(node: fx.Node, rank: int | None) -> int | None:
    """A named axis goes, which has size 1 wherever one is squeezed; without a name, sizes decide."""
    axis = _argument(node, 1, ("dim",), None)
    return rank - 1 if rank is not None and isinstance(axis, int) else None


def _getitem(node: fx.Node, rank: int | None) -> int | None:
    """Indices of a tensor; a part of a tuple of tensors has the rank of what was cut."""
    source, index = node.args[0], node.args[1]
    if isinstance(source, fx.Node) and _name(source) in ("chunk", "split", "split_with_sizes"):
        return rank
    indices = index if isinstance(index, tuple) else (index,)
    if rank is None or not all(isinstance(one, (int, slice)) or one in (None, Ellipsis) for one in indices):
        return None
    return rank - sum(isinstance(one, int) for one in indices) + sum(one is None for one in indices)


def _cut(_: fx.Node, rank: int | None) -> int | None:
    return rank


_RULES: dict[str, Callable[[fx.Node, int | None], int | None]] = {
    "flatten": _flatten,
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _mean),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "getitem": _getitem,
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _cut),
}
