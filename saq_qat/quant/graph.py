"""What the nodes of a traced network are: the few operations that placement and lowering know by name.

Everything else is a float operation, left as it is.
"""

import operator
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import fx, nn

from saq_qat.errors import LegalityError
from saq_qat.quant.layers import QuantConv2d, QuantLayer
from saq_qat.quant.tracer import ImageTracer

_RESHAPES = (torch.flatten, torch.reshape, torch.permute, torch.transpose)
_RESHAPE_METHODS = ("contiguous", "flatten", "permute", "reshape", "transpose", "view")
_BOUNDED = (F.gelu, F.silu, F.hardswish, F.mish)
_DROPOUTS = (
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    torch.dropout,
)

__all__ = [
    "activation_bound",
    "is_add",
    "is_batch_norm",
    "is_bounded_below",
    "is_carrier",
    "is_convolution",
    "is_global_average",
    "is_identity",
    "is_max_pool",
    "is_nonnegative",
    "is_product",
    "is_reshape",
    "is_second_operand",
    "is_shape_arithmetic",
    "is_shape_query",
    "is_weighted",
    "module_of",
    "source_of",
    "trace",
    "uses",
    "value_of",
]


def trace(model: nn.Module) -> fx.GraphModule:
    """Symbolic trace of ``model``, sharing its modules and parameters.

    Raises:
        LegalityError: the forward pass branches on values or shapes, or calls a dropout that follows no
            train/eval mode.
    """
    try:
        tracer = ImageTracer()
        network = fx.GraphModule(model, tracer.trace(model), type(model).__name__)
    except (fx.proxy.TraceError, TypeError) as error:
        raise LegalityError(
            "Quantizers are placed on a torch.fx graph, and "
            f"{type(model).__name__} cannot be traced: {error}. Write forward without branches or loops that "
            "depend on tensor values, or mark the part with torch.fx.wrap."
        ) from error
    _check_interface(network, type(model).__name__)
    for node in network.graph.nodes:
        if node.op == "call_function" and node.target in _DROPOUTS:
            raise LegalityError(
                f"{node.name}: functional dropout is fixed by tracing and would stay on in evaluation. "
                "Use nn.Dropout."
            )
    network.graph.eliminate_dead_code()
    network.recompile()
    return network


def _check_interface(network: fx.GraphModule, name: str) -> None:
    outputs = network.graph.output_node().args[0]
    if not isinstance(outputs, fx.Node):
        raise LegalityError(
            f"A network gives one tensor, the logits (N, classes); {name} returns {outputs}. "
            "Wrap it in a module that returns the logits alone."
        )


def module_of(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module a node calls, or None."""
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def _calls(
    network: fx.GraphModule,
    node: fx.Node,
    modules: tuple[type, ...],
    functions: tuple[Callable[..., object], ...] = (),
    methods: tuple[str, ...] = (),
) -> bool:
    if node.op == "call_module":
        return isinstance(module_of(network, node), modules)
    return (node.op == "call_function" and node.target in functions) or (
        node.op == "call_method" and node.target in methods
    )


def is_weighted(network: fx.GraphModule, node: fx.Node) -> bool:
    """A convolution or linear layer, quantized or not yet."""
    return _calls(network, node, (nn.Conv2d, nn.Linear, QuantLayer))


def is_convolution(network: fx.GraphModule, node: fx.Node) -> bool:
    """A convolution, quantized or not yet; its integer kernel writes codes."""
    return _calls(network, node, (nn.Conv2d, QuantConv2d))


def is_product(network: fx.GraphModule, node: fx.Node) -> bool:
    """A matrix product of two computed tensors, such as attention's."""
    return (
        _calls(network, node, (), (operator.matmul, torch.matmul, torch.bmm), ("matmul", "bmm"))
        and len(node.args) == 2
        and all(isinstance(term, fx.Node) and term.op != "get_attr" for term in node.args)
    )


def is_batch_norm(network: fx.GraphModule, node: fx.Node) -> bool:
    return _calls(network, node, (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm))


def is_add(network: fx.GraphModule, node: fx.Node) -> bool:
    """A sum of two computed tensors, such as a residual sum; not of a tensor and a parameter or number."""
    return (
        _calls(network, node, (), (operator.add, operator.iadd, torch.add), ("add", "add_"))
        and "alpha" not in node.kwargs
        and len(node.args) == 2
        and all(isinstance(term, fx.Node) and term.op != "get_attr" for term in node.args)
    )


def is_max_pool(network: fx.GraphModule, node: fx.Node) -> bool:
    return _calls(network, node, (nn.MaxPool2d,), (F.max_pool2d, torch.max_pool2d))


def is_global_average(network: fx.GraphModule, node: fx.Node) -> bool:
    """The mean over height and width, whichever way it is written."""
    module = module_of(network, node)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return module.output_size in (1, (1, 1))
    if _calls(network, node, (), (F.adaptive_avg_pool2d,)):
        return (node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")) in (1, (1, 1))
    if _calls(network, node, (), (torch.mean,), ("mean",)):
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return isinstance(axes, (tuple, list)) and [int(str(a)) for a in axes] in ([2, 3], [-2, -1])
    return False


def is_second_operand(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether every reader of a value is a product that has it as its second factor."""
    readers = [(reader, carrier) for reader, carrier in uses(network, node) if not is_shape_query(reader)]
    return bool(readers) and all(
        is_product(network, reader) and reader.args[1] is carrier for reader, carrier in readers
    )


def is_reshape(network: fx.GraphModule, node: fx.Node) -> bool:
    """Reorders values and rounds none: codes pass through as they are."""
    return _calls(network, node, (nn.Flatten,), _RESHAPES, _RESHAPE_METHODS)


def is_identity(network: fx.GraphModule, node: fx.Node) -> bool:
    """Passes values on in evaluation."""
    return _calls(network, node, (nn.Dropout, nn.Dropout2d, nn.Identity))


def is_carrier(network: fx.GraphModule, node: fx.Node) -> bool:
    """Hands values of its input on, so that a grid before it is a grid after it."""
    return is_max_pool(network, node) or is_reshape(network, node) or is_identity(network, node)


def activation_bound(network: fx.GraphModule, node: fx.Node) -> float | None:
    """Upper bound of a ReLU (infinity) or ReLU6 (6); None for anything else."""
    if _calls(network, node, (nn.ReLU6,), (F.relu6,)):
        return 6.0
    if _calls(network, node, (nn.ReLU,), (F.relu, torch.relu), ("relu", "relu_")):
        return float("inf")
    return None


def is_nonnegative(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the values of ``node`` cannot be below zero, as far as the graph tells."""
    if activation_bound(network, node) is not None or _calls(
        network, node, (nn.Sigmoid, nn.Softmax), (torch.sigmoid, F.softmax), ("sigmoid", "softmax")
    ):
        return True
    if is_carrier(network, node) or is_global_average(network, node):
        return is_nonnegative(network, node.all_input_nodes[0])
    return is_add(network, node) and all(is_nonnegative(network, term) for term in node.all_input_nodes)


def is_bounded_below(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether an activation keeps the values of ``node`` above some small negative number."""
    if _calls(network, node, (nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish), _BOUNDED):
        return True
    return is_carrier(network, node) and is_bounded_below(network, node.all_input_nodes[0])


def is_shape_query(node: fx.Node) -> bool:
    """Reads the shape of its input, not its values."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim")


def is_shape_arithmetic(node: fx.Node) -> bool:
    """Computes with shapes alone: sizes, what is made of them, checks of them."""
    inputs = node.all_input_nodes
    return is_shape_query(node) or (bool(inputs) and all(map(is_shape_arithmetic, inputs)))


def source_of(network: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node whose values ``node`` reads, with carriers walked through."""
    return value_of(network, node.all_input_nodes[0])


def value_of(network: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node that computed the values which ``node`` has, or hands on as a carrier."""
    while is_carrier(network, node):
        node = node.all_input_nodes[0]
    return node


def uses(network: fx.GraphModule, node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """``(consumer, carrier)`` of every use of a value, through carriers; ``carrier`` is the node it reads."""
    for user in node.users:
        if not is_carrier(network, user):
            yield user, node
        elif user.all_input_nodes[0] is node:  # else the node is a size that the carrier reshapes to
            yield from uses(network, user)
