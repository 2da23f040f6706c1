"""One value computed twice is one value: exporters merge such pairs, and each value gets one quantizer."""

from typing import Any

from torch import Tensor, fx, nn

from saq_qat.quant.trace.constants import is_random
from saq_qat.quant.trace.graph import uses
from saq_qat.quant.trace.in_place import works_in_place
from saq_qat.quant.trace.modes import FollowsMode, depends_on_mode

__all__ = ["merge_duplicates"]


def merge_duplicates(network: fx.GraphModule) -> None:
    """Replace every operation that repeats an earlier one on the same values by that one, in place.

    Layers without parameters count as functions: two poolings of one tensor are one. What follows the mode,
    draws numbers or works in place is left alone.
    """
    seen: dict[Any, fx.Node] = {}
    for node in network.graph.nodes:
        key = None if works_in_place(network, node) else _key(network, node)
        if key is None:
            continue
        first = seen.setdefault(key, node)
        if first is not node and not (_is_overwritten(network, first) or _is_overwritten(network, node)):
            node.replace_all_uses_with(first)
            network.graph.erase_node(node)


def _is_overwritten(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether some reader of a value, or of a view of it, works in place."""
    readers = [user for use in uses(network, node) for user in use]
    return any(works_in_place(network, reader) for reader in readers if reader is not node)


def _key(network: fx.GraphModule, node: fx.Node) -> Any:
    """Equal for operations that give the same; None for one that nothing may replace."""
    given = (_frozen(node.args), _frozen(node.kwargs))
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return None if _is_own(module) else (_identity(module, str(node.target)), given)
    is_call = node.op in ("call_function", "call_method")
    return (node.op, node.target, given) if is_call and not is_random(node) else None


def _is_own(module: nn.Module) -> bool:
    """Whether two calls of a layer may differ, or leave something behind."""
    follows_mode = isinstance(module, FollowsMode) or depends_on_mode(module)
    return follows_mode or any(True for _ in module.buffers())


def _identity(module: nn.Module, path: str) -> Any:
    """Layers of torch.nn without parameters are what they print."""
    is_plain = type(module).__module__.startswith("torch.nn") and not any(True for _ in module.parameters())
    return (type(module), repr(module)) if is_plain else path


def _frozen(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return tuple(sorted((key, _frozen(entry)) for key, entry in value.items()))
    if isinstance(value, slice):
        return ("slice", _frozen((value.start, value.stop, value.step)))
    return id(value) if isinstance(value, Tensor) else (type(value), value)
