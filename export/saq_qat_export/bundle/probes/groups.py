"""Which tensors of codes must have the same number of samples, once each is given by itself."""

from torch import fx

from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.quant.trace import graph
from saq_qat_export.reference.deploy_view import tensor_name

__all__ = ["IMAGE", "batch_groups"]

IMAGE = "image"
"""Stands for the images that the network is given."""


def batch_groups(view: fx.GraphModule) -> list[frozenset[str]]:
    """Tensors of codes, and ``IMAGE``, that some operation reads together, in graph order.

    A network that asks for the size of a tensor may use it for any other: all of its tensors are one group.
    """
    groups: dict[str, set[str]] = {}
    reads: dict[fx.Node, set[str]] = {}
    for node in view.graph.nodes:
        found = {name for parent in node.all_input_nodes for name in reads.get(parent, ())}
        own = IMAGE if node.op == "placeholder" else ""
        if isinstance(graph.module_of(view, node), Quantize):
            own = tensor_name(str(node.target))
        _join(groups, found)
        reads[node] = found
        if own:
            groups.setdefault(own, {own})
            reads[node] = {own}
    if any(graph.is_shape_query(node) for node in view.graph.nodes):
        _join(groups, set(groups))
    return list(dict.fromkeys(map(frozenset, groups.values())))


def _join(groups: dict[str, set[str]], names: set[str]) -> None:
    joined = set().union(*(groups[name] for name in names)) if names else set()
    for name in joined:
        groups[name] = joined
