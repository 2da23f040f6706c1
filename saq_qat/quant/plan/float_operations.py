"""What a planned network computes in float between codes, and why it does."""

from collections import Counter

from torch import fx

from saq_qat.quant.plan.plan import Plan
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.groups import groups
from saq_qat.quant.trace.modes import FollowsMode

__all__ = ["WHY_FLOAT", "float_operations"]

WHY_FLOAT = (
    "Integers are for convolutions, linear layers and products of two activations, and with placement: "
    "deploy for global averages and for sums of which a convolution writes a term."
)


def float_operations(plan: Plan, network: fx.GraphModule) -> Counter[str]:
    """How often each operation is computed in float, by the name that PyTorch gives it, most frequent first.

    Layers are not among them: ``LayerPlan.float_on`` says where they are float.
    """
    readers = {consumer for tensor in plan.tensors for consumer in tensor.consumers}
    found: Counter[str] = Counter()
    for group in groups(network):
        head = group.head
        moves = graph.is_carrier(network, head) or graph.is_shape_arithmetic(head)
        skipped = head.op in ("placeholder", "get_attr") or moves or graph.is_weighted(network, head)
        if not skipped and head.name not in readers:
            found[_kind(network, head)] += 1
    return Counter(dict(found.most_common()))


def _kind(network: fx.GraphModule, node: fx.Node) -> str:
    module = graph.module_of(network, node)
    if isinstance(module, FollowsMode):
        return str(getattr(module.function, "__name__", module.function))
    if module is not None:
        return type(module).__name__
    name = (
        str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", node.target))
    )
    return "sum" if name.strip("_") in ("add", "iadd") else name
