"""What a node of a quantized network reads: the quantizer of its input."""

from torch import fx

from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace import graph

__all__ = ["activation_quantizers", "hand_quantizer", "quantizer_before", "quantizer_before_factor"]


def quantizer_before(network: fx.GraphModule, node: fx.Node) -> Quantizer | None:
    """The quantizer whose codes a node reads, through carriers; None for a float input."""
    return _quantizer_of(network, graph.source_of(network, node))


def quantizer_before_factor(network: fx.GraphModule, product: fx.Node, index: int) -> Quantizer | None:
    """The same for one factor (0 or 1) of a product of two tensors; None also for a reader of shapes."""
    if not graph.is_product(network, product):
        return None
    factor = product.args[index]
    return _quantizer_of(network, graph.value_of(network, factor)) if isinstance(factor, fx.Node) else None


def _quantizer_of(network: fx.GraphModule, node: fx.Node) -> Quantizer | None:
    module = graph.module_of(network, node)
    return module if isinstance(module, Quantizer) else None


def hand_quantizer(network: fx.GraphModule, node: fx.Node) -> None:
    """Hand a layer the quantizer of its input as second argument; once, and only where there is one."""
    if len(node.args) == 1 and quantizer_before(network, node) is not None:
        path = str(graph.source_of(network, node).target)
        with network.graph.inserting_before(node):
            node.args = (*node.args, network.graph.get_attr(path))


def activation_quantizers(network: fx.GraphModule) -> dict[str, Quantizer]:
    """Plan name and quantizer of every activation, in graph order."""
    modules = network.get_submodule("quantizers").named_children()
    return {name: module for name, module in modules if isinstance(module, Quantizer)}
