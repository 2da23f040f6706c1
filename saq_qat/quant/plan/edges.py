"""The first and the last layers of a network, found by what flows into and out of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import fx

from saq_qat.quant.plan.plan import Finding
from saq_qat.quant.trace import graph

__all__ = ["Edges", "edge_finding", "edges_of"]


@dataclass(frozen=True)
class Edges:
    """Nodes of layers: ``first`` reads nothing that another layer computed, no other layer reads ``last``.

    Attributes:
        indirect: those of them with operations between them and the image, or the output, that compute.
    """

    first: tuple[fx.Node, ...]
    last: tuple[fx.Node, ...]
    indirect: tuple[fx.Node, ...]

    def __contains__(self, node: fx.Node) -> bool:
        return node in self.first or node in self.last


def edges_of(network: fx.GraphModule) -> Edges:
    """Products of two computed tensors count as layers, and are no edges themselves."""
    nodes = list(network.graph.nodes)
    layers = [node for node in nodes if graph.is_weighted(network, node)]
    barriers = {*layers, *(node for node in nodes if graph.is_product(network, node))}
    behind = _reached(nodes, barriers, lambda node: node.all_input_nodes)
    before = _reached(reversed(nodes), barriers, lambda node: list(node.users))
    first = tuple(node for node in layers if node not in behind)
    last = tuple(node for node in layers if node not in before)
    direct = {node for node in first if graph.source_of(network, node).op == "placeholder"}
    direct |= {node for node in last if any(user.op == "output" for user, _ in graph.uses(network, node))}
    return Edges(first, last, tuple(node for node in (*first, *last) if node not in direct))


def _reached(
    nodes: Iterable[fx.Node], barriers: set[fx.Node], sources: Callable[[fx.Node], list[fx.Node]]
) -> set[fx.Node]:
    """Nodes that a barrier's value flows to; sizes carry none."""
    found: set[fx.Node] = set()
    for node in nodes:
        if not graph.is_shape_query(node) and any(s in barriers or s in found for s in sources(node)):
            found.add(node)
    return found


def edge_finding(network: fx.GraphModule) -> list[Finding]:
    """Which layers the bits of the edges are for, where that is not plain to see."""
    edges = edges_of(network)
    if not edges.indirect:
        return []
    named = [", ".join(str(node.target) for node in nodes) for nodes in (edges.first, edges.last)]
    return [
        Finding(
            "NET003", "note", str(edges.indirect[0].target),
            f"quant.edge_bits is for layers that read nothing of others ({named[0]}), and for those that "
            f"no other layer reads ({named[1]}).",
            "quant.overrides gives others their own bits.",
        )
    ]  # fmt: skip  # one value a line is a page
