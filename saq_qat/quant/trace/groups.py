"""Groups: a node with the BatchNorm and the ReLU that follow it alone, which run as one kernel."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx, nn

from saq_qat.quant.numerics.layers import QuantLinear
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.ranks import rank_of

__all__ = ["Group", "groups"]


@dataclass(frozen=True)
class Group:
    """A node with what is fused into it: the BatchNorm and the ReLU that read nothing else."""

    head: fx.Node
    batch_norm: fx.Node | None
    activation: fx.Node | None

    @property
    def output(self) -> fx.Node:
        """The group's last node, whose value may be quantized."""
        return self.activation or self.batch_norm or self.head


def groups(network: fx.GraphModule) -> Iterator[Group]:
    """Every group in graph order: one per node that is not fused into an earlier one."""
    fused: set[fx.Node] = set()
    for node in network.graph.nodes:
        if node in fused or node.op == "output":
            continue
        group = _group_of(network, node)
        fused |= {part for part in (group.batch_norm, group.activation) if part is not None}
        yield group


def _group_of(network: fx.GraphModule, node: fx.Node) -> Group:
    norm = _only_reader(node) if graph.is_weighted(network, node) else None
    if norm is not None and not (graph.is_batch_norm(network, norm) and _is_on_channels(network, node)):
        norm = None
    activation = None if graph.is_carrier(network, node) else _only_reader(norm or node)
    if activation is not None and graph.activation_bound(network, activation) is None:
        activation = None
    return Group(node, norm, activation)


def _is_on_channels(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether axis 1, which a BatchNorm behind it normalises, holds the channels that ``node`` computes.

    Those of a linear layer are on its last axis: the second of (N, C), but not of (N, T, C).
    """
    is_linear = isinstance(graph.module_of(network, node), (nn.Linear, QuantLinear))
    return not is_linear or rank_of(network, node) == 2


def _only_reader(node: fx.Node) -> fx.Node | None:
    readers = [user for user in node.users if not graph.is_shape_query(user)]
    return readers[0] if len(readers) == 1 else None
