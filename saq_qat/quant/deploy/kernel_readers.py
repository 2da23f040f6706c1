"""Which quantizer makes the codes of a kernel: handed to those whose evaluation rounds as the kernel does."""

from torch import fx

from saq_qat.quant.numerics.layers import QuantLayer
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace import graph

__all__ = ["absorbed_bound", "hand_readers"]


def absorbed_bound(network: fx.GraphModule, node: fx.Node) -> float | None:
    """Upper bound of a ReLU that only a quantizer reads, and which so lives on as bounds of codes."""
    bound = graph.activation_bound(network, node)
    if bound is None or len(node.users) != 1:
        return None
    quantizer = graph.module_of(network, next(iter(node.users)))
    return bound if isinstance(quantizer, Quantizer) and quantizer.beta is None else None


def hand_readers(network: fx.GraphModule) -> None:
    """Hand each layer on codes the quantizer that makes codes of its sums, and each quantizer that makes
    codes of a sum of two codes, or of a mean of codes over height and width, what was added or averaged;
    once. Training is what it was.
    """
    for node in list(network.graph.nodes):
        reader = _reader(network, node)
        if reader is None:
            continue
        if isinstance(graph.module_of(network, node), QuantLayer) and len(node.args) == 2:
            node.args = (*node.args, _handle(network, reader, node))
        elif graph.is_add(network, node) and len(reader.args) == 1:
            _hand_terms(network, node, reader)
        elif graph.is_global_average(network, node) and len(reader.args) == 1:
            _hand_averaged(network, node, reader)


def _reader(network: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The quantizer that alone reads a value, through what becomes no operation between kernel and codes."""
    readers = [user for user in node.users if not graph.is_shape_query(user)]
    if len(readers) != 1:
        return None
    (reader,) = readers
    quantizer = graph.module_of(network, reader)
    if isinstance(quantizer, Quantizer):
        return reader if quantizer.beta is None else None
    moves = graph.is_reshape(network, reader) and reader.all_input_nodes[0] is node
    vanishes = graph.is_identity(network, reader) or absorbed_bound(network, reader) is not None
    return _reader(network, reader) if moves or vanishes else None


def _hand_terms(network: fx.GraphModule, node: fx.Node, reader: fx.Node) -> None:
    """Not where a term is no code, or has an offset."""
    terms = [term for term in node.args if isinstance(term, fx.Node)]
    sources = [graph.value_of(network, term) for term in terms]
    quantizers = [graph.module_of(network, source) for source in sources]
    if not all(isinstance(quantizer, Quantizer) and quantizer.beta is None for quantizer in quantizers):
        return
    read = (quantize.all_input_nodes[0] for quantize in (*sources, reader))
    bounds = tuple(absorbed_bound(network, node) for node in read)
    handles = tuple(_handle(network, source, reader) for source in sources)
    reader.args = (*reader.args, (tuple(terms), handles, bounds))


def _hand_averaged(network: fx.GraphModule, node: fx.Node, reader: fx.Node) -> None:
    """Not where floats are averaged, or codes that have an offset."""
    values = node.all_input_nodes[0]
    source = graph.value_of(network, values)
    quantizer = graph.module_of(network, source)
    if isinstance(quantizer, Quantizer) and quantizer.beta is None:
        reader.args = (*reader.args, None, (values, _handle(network, source, reader)))


def _handle(network: fx.GraphModule, quantize: fx.Node, before: fx.Node) -> fx.Node:
    with network.graph.inserting_before(before):
        return network.graph.get_attr(str(quantize.target))
