"""What a node of a quantized network reads: the quantizer of its input."""

from torch import fx

from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace import graph

__all__ = ["hand_quantizer", "quantizer_before"]


def quantizer_before(network: fx.GraphModule, node: fx.Node) -> Quantizer | None:
    """The quantizer whose codes a node reads, through carriers; None for a float input."""
    module = graph.module_of(network, graph.source_of(network, node))
    return module if isinstance(module, Quantizer) else None


def hand_quantizer(network: fx.GraphModule, node: fx.Node) -> None:
    """Hand a layer the quantizer of its input as second argument; once, and only where there is one."""
    if len(node.args) == 1 and quantizer_before(network, node) is not None:
        path = str(graph.source_of(network, node).target)
        with network.graph.inserting_before(node):
            node.args = (*node.args, network.graph.get_attr(path))
