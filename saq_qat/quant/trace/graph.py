"""What the nodes of a traced network are: the few operations that placement and lowering know by name.

Everything else is a float operation, left as it is.
"""

import copy
import operator
from collections.abc import Callable, Iterator
from itertools import chain

import torch
import torch.nn.functional as F
from torch import fx, nn

from saq_qat.quant.numerics.layers import QuantConv2d, QuantLayer
from saq_qat.quant.trace.modes import depends_on_mode
from saq_qat.quant.trace.operations import (
    BOUNDED,
    CLIPPING,
    DROPOUT,
    JOINING,
    NONNEGATIVE,
    POOLING,
    RESHAPING,
    SELECTING,
    Operations,
)
from saq_qat.quant.trace.ranks import rank_of

__all__ = [
    "activation_bound",
    "clip_limits",
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
    "reads_image",
    "selects",
    "source_of",
    "uses",
    "value_of",
]


_IMAGE_RANK = 4
_READS_IMAGE = "saq_qat.reads_image"
_IS_SHAPE_ARITHMETIC = "saq_qat.is_shape_arithmetic"


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


def _is_one_of(network: fx.GraphModule, node: fx.Node, operations: Operations) -> bool:
    return _calls(network, node, operations.modules, operations.functions, operations.methods)


def reads_image(node: fx.Node) -> bool:
    """Whether a value depends on the image, and not on parameters and constants alone."""
    if _READS_IMAGE not in node.meta:
        for earlier in node.graph.nodes:
            if _READS_IMAGE not in earlier.meta:
                inputs = earlier.all_input_nodes
                found = earlier.op == "placeholder" or any(i.meta.get(_READS_IMAGE, True) for i in inputs)
                earlier.meta[_READS_IMAGE] = found
    return bool(node.meta[_READS_IMAGE])


def is_weighted(network: fx.GraphModule, node: fx.Node) -> bool:
    """A convolution or linear layer, quantized or not yet; one of constants stays a float operation."""
    return _calls(network, node, (nn.Conv2d, nn.Linear, QuantLayer)) and reads_image(node)


def is_convolution(network: fx.GraphModule, node: fx.Node) -> bool:
    """A convolution, quantized or not yet; its integer kernel writes codes."""
    return _calls(network, node, (nn.Conv2d, QuantConv2d)) and reads_image(node)


def is_product(network: fx.GraphModule, node: fx.Node) -> bool:
    """A matrix product of two computed tensors, such as attention's."""
    return (
        _calls(network, node, (), (operator.matmul, torch.matmul, torch.bmm), ("matmul", "bmm"))
        and len(node.args) == 2
        and all(isinstance(term, fx.Node) and reads_image(term) for term in node.args)
    )


def is_batch_norm(network: fx.GraphModule, node: fx.Node) -> bool:
    return _calls(network, node, (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm))


def is_add(network: fx.GraphModule, node: fx.Node) -> bool:
    """A sum of two computed tensors, such as a residual sum; not of a tensor and a parameter or number."""
    return (
        _calls(network, node, (), (operator.add, operator.iadd, torch.add), ("add", "add_"))
        and "alpha" not in node.kwargs
        and len(node.args) == 2
        and all(isinstance(term, fx.Node) and reads_image(term) for term in node.args)
    )


def is_max_pool(network: fx.GraphModule, node: fx.Node) -> bool:
    return _is_one_of(network, node, POOLING)


def is_global_average(network: fx.GraphModule, node: fx.Node) -> bool:
    """The mean over height and width, whichever way it is written."""
    module = module_of(network, node)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return module.output_size in (1, (1, 1))
    if _calls(network, node, (), (F.adaptive_avg_pool2d,)):
        return (node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")) in (1, (1, 1))
    if _calls(network, node, (), (torch.mean,), ("mean",)):
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        over_image = isinstance(axes, (tuple, list)) and [int(str(a)) for a in axes] in ([2, 3], [-2, -1])
        return over_image and rank_of(network, node.all_input_nodes[0]) in (_IMAGE_RANK, None)
    return False


def is_second_operand(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether every reader of a value is a product that has it as its second factor."""
    readers = [(reader, carrier) for reader, carrier in uses(network, node) if not is_shape_query(reader)]
    return bool(readers) and all(
        is_product(network, reader) and reader.args[1] is carrier for reader, carrier in readers
    )


def is_reshape(network: fx.GraphModule, node: fx.Node) -> bool:
    """Reorders values and rounds none: codes pass through as they are."""
    return _is_one_of(network, node, RESHAPING)


def is_identity(network: fx.GraphModule, node: fx.Node) -> bool:
    """Passes values on in evaluation, as dropouts and stochastic depth do."""
    module = module_of(network, node)
    return _is_one_of(network, node, DROPOUT) or (module is not None and _hands_on(module))


def _hands_on(module: nn.Module) -> bool:
    """Whether a module that follows the mode gives back, in evaluation, the very tensor it is given."""
    if not depends_on_mode(module) or next(chain(module.parameters(), module.buffers()), None) is not None:
        return False
    evaluating, probe = copy.copy(module).eval(), torch.zeros(1, 1, 1, 1)
    try:
        return evaluating(probe) is probe
    # It may want another shape, or more than one input.
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError):
        return False


def is_carrier(network: fx.GraphModule, node: fx.Node) -> bool:
    """Hands values of its input on, so that a grid before it is a grid after it."""
    return is_max_pool(network, node) or is_reshape(network, node) or is_identity(network, node)


def activation_bound(network: fx.GraphModule, node: fx.Node) -> float | None:
    """Upper bound of a ReLU (infinity) or ReLU6 (6), whichever way it is written; None for anything else."""
    if _calls(network, node, (nn.ReLU6,), (F.relu6,)):
        return 6.0
    if _calls(network, node, (nn.ReLU,), (F.relu, torch.relu), ("relu", "relu_")):
        return float("inf")
    low, high = clip_limits(network, node)
    return high if low == 0 else None


def clip_limits(network: fx.GraphModule, node: fx.Node) -> tuple[float | None, float]:
    """Bounds that a clipping puts on values: (None, infinity) for anything else and for computed bounds."""
    module = module_of(network, node)
    if isinstance(module, nn.Hardtanh):
        return float(module.min_val), float(module.max_val)
    names = ("min_val", "max_val") if node.target is F.hardtanh else ("min", "max")
    if not _is_one_of(network, node, CLIPPING):
        return None, float("inf")
    given = dict(zip(names, node.args[1:], strict=False)) | node.kwargs
    low, high = given.get(names[0]), given.get(names[1])
    if isinstance(low, int | float) and (high is None or isinstance(high, int | float)):
        return float(low), float("inf") if high is None else float(high)
    return None, float("inf")


def is_nonnegative(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the values of ``node`` cannot be below zero, as far as the graph tells."""
    low, _ = clip_limits(network, node)
    is_clipped = activation_bound(network, node) is not None or (low is not None and low >= 0)
    if is_clipped or _is_one_of(network, node, NONNEGATIVE):
        return True
    if is_carrier(network, node) or is_global_average(network, node) or selects(network, node):
        return is_nonnegative(network, node.all_input_nodes[0])
    terms = node.all_input_nodes
    has_negative_number = any(
        isinstance(term, int | float) and term < 0 for term in (*node.args, *node.kwargs.values())
    )
    is_joined = _is_one_of(network, node, JOINING) and bool(terms) and not has_negative_number
    return is_joined and "alpha" not in node.kwargs and all(is_nonnegative(network, term) for term in terms)


def selects(network: fx.GraphModule, node: fx.Node) -> bool:
    """Gives some of its input's values, means or copies of them, or zeros."""
    settings = {*node.args[2:], *node.kwargs.values()} if node.target is F.pad else set()
    if settings - {"constant", "reflect", "replicate", 0, None}:
        return False
    return bool(node.all_input_nodes) and _is_one_of(network, node, SELECTING)


def is_bounded_below(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether an activation keeps the values of ``node`` above some small negative number."""
    if _is_one_of(network, node, BOUNDED):
        return True
    return is_carrier(network, node) and is_bounded_below(network, node.all_input_nodes[0])


def is_shape_query(node: fx.Node) -> bool:
    """Reads the shape of its input, not its values."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim")


def is_shape_arithmetic(node: fx.Node) -> bool:
    """Computes with shapes alone: sizes, what is made of them, checks of them."""
    if _IS_SHAPE_ARITHMETIC not in node.meta:
        for earlier in node.graph.nodes:
            inputs = earlier.all_input_nodes
            of_shapes = bool(inputs) and all(term.meta.get(_IS_SHAPE_ARITHMETIC, False) for term in inputs)
            earlier.meta[_IS_SHAPE_ARITHMETIC] = is_shape_query(earlier) or of_shapes
    return bool(node.meta[_IS_SHAPE_ARITHMETIC])


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
