"""Which nodes of a deploy view become one integer kernel: a layer, a sum or a product, and its quantizer."""

from torch import fx

from saq_qat.quant import graph, ops
from saq_qat.quant.integer_modules import IntegerLayer, IntegerLinear, Quantize

__all__ = ["float_results", "is_integer_product", "kernel_before", "quantizer_behind", "reads_codes"]


def reads_codes(view: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node reads dequantized codes alone, through carriers."""
    return all(graph.value_of(view, parent).target is ops.DEQUANTIZE for parent in node.all_input_nodes)


def is_integer_product(view: fx.GraphModule, node: fx.Node) -> bool:
    """A linear layer on codes, or a product of two tensors of codes: their kernels may write floats."""
    module = graph.module_of(view, node)
    if isinstance(module, IntegerLayer):
        return isinstance(module, IntegerLinear) and module.bias_scale is not None
    return graph.is_product(view, node) and reads_codes(view, node)


def kernel_before(view: fx.GraphModule, quantize: fx.Node) -> tuple[fx.Node, tuple[fx.Node, ...]]:
    """The node whose result a quantizer rounds, and the carriers between the two, in graph order."""
    node, carriers = quantize.all_input_nodes[0], []
    while graph.is_reshape(view, node):
        carriers.append(node)
        node = node.all_input_nodes[0]
    return node, tuple(reversed(carriers))


def quantizer_behind(view: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The quantizer that alone reads a value, through carriers: a kernel then writes its codes."""
    readers = [reader for reader in node.users if not graph.is_shape_query(reader)]
    if len(readers) != 1:
        return None
    (reader,) = readers
    if isinstance(graph.module_of(view, reader), Quantize):
        return reader
    carries = graph.is_reshape(view, reader) and reader.all_input_nodes[0] is node
    return quantizer_behind(view, reader) if carries else None


def float_results(view: fx.GraphModule) -> dict[fx.Node, str]:
    """Integer products whose kernels write floats, with the name of what they write, in graph order.

    The network's own output is no such tensor: it is compared as logits.
    """
    return {
        node: str(node.target) if node.op == "call_module" else node.name
        for node in view.graph.nodes
        if is_integer_product(view, node)
        and quantizer_behind(view, node) is None
        and any(reader.op != "output" for reader in node.users)
    }
