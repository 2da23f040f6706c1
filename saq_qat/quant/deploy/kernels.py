"""Which nodes of a deploy view become one integer kernel: a layer, a sum or a product, and its quantizer."""

from torch import fx

from saq_qat.quant.deploy import ops
from saq_qat.quant.deploy.integer_modules import IntegerLayer, IntegerLinear, Quantize
from saq_qat.quant.trace import graph

__all__ = [
    "LOGITS",
    "float_results",
    "is_integer_kernel",
    "is_integer_product",
    "is_never_negative",
    "is_sum_of_codes",
    "kernel_before",
    "quantizer_behind",
    "reads_codes",
]

LOGITS = "logits"
"""The network's output, in every graph and comparison."""


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


def quantizer_behind(view: fx.GraphModule, node: fx.Node, *, through_bounds: bool = False) -> fx.Node | None:
    """The quantizer that alone reads a value, through carriers: a kernel then writes its codes.

    Args:
        through_bounds: whether a clipping may stand between, which a kernel may do on codes.
    """
    readers = [reader for reader in node.users if not graph.is_shape_query(reader)]
    if len(readers) != 1:
        return None
    (reader,) = readers
    if isinstance(graph.module_of(view, reader), Quantize):
        return reader
    carries = graph.is_reshape(view, reader) and reader.all_input_nodes[0] is node
    bounds = through_bounds and _is_bound(view, reader)
    return quantizer_behind(view, reader, through_bounds=through_bounds) if carries or bounds else None


def _is_bound(view: fx.GraphModule, node: fx.Node) -> bool:
    return graph.activation_bound(view, node) is not None or graph.clip_limits(view, node)[0] is not None


def is_integer_kernel(view: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the value of ``node`` is the sums of one integer kernel, which writes their codes or floats.

    Linear layers and products compute the same integers where they write floats for several readers.
    """
    if is_integer_product(view, node):
        return True
    if quantizer_behind(view, node) is None:
        return False
    module = graph.module_of(view, node)
    if isinstance(module, IntegerLayer):
        return module.bias_scale is not None
    is_known = (
        node.target is ops.GLOBAL_AVERAGE_POOL or graph.is_add(view, node) or graph.is_max_pool(view, node)
    )
    return is_known and all(parent.target is ops.DEQUANTIZE for parent in node.all_input_nodes)


def is_never_negative(view: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the graph itself keeps values from 0 on, codes wherever they were moved: no bound is due."""
    passes = (ops.GLOBAL_AVERAGE_POOL, ops.DEQUANTIZE)
    while node.target in passes or graph.is_carrier(view, node) or graph.selects(view, node):
        node = node.all_input_nodes[0]
    module = graph.module_of(view, node)
    return module.minimum >= 0 if isinstance(module, Quantize) else graph.is_nonnegative(view, node)


def is_sum_of_codes(view: fx.GraphModule, node: fx.Node) -> bool:
    """A sum of two tensors of codes that one kernel adds."""
    return graph.is_add(view, node) and len(node.all_input_nodes) == 2 and is_integer_kernel(view, node)


def float_results(view: fx.GraphModule) -> dict[fx.Node, str]:
    """Integer products whose kernels write floats, with the name of what they write, in graph order."""
    return {
        node: _name_of_result(node)
        for node in view.graph.nodes
        if is_integer_product(view, node) and quantizer_behind(view, node, through_bounds=True) is None
    }


def _name_of_result(node: fx.Node) -> str:
    """After its layer, or its graph node; what leaves the network has the output's name."""
    if any(reader.op == "output" for reader in node.users):
        return LOGITS
    return str(node.target) if node.op == "call_module" else node.name
