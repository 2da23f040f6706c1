"""What overwrites its input: the graph of a network knows results of operations alone."""

import operator
from collections.abc import Iterator

from torch import fx

from saq_qat.errors import LegalityError
from saq_qat.quant.trace.graph import is_reshape, is_shape_query
from saq_qat.quant.trace.operations import called_name
from saq_qat.quant.trace.sizes import OVERWRITES, WRITTEN_BACK

__all__ = ["check_in_place", "works_in_place"]


def check_in_place(network: fx.GraphModule) -> None:
    """Refuse what overwrites a tensor that somebody goes on reading.

    Raises:
        LegalityError: naming the operation, and who reads the tensor afterwards.
    """
    order = {node: index for index, node in enumerate(network.graph.nodes)}
    _check_assignments(network, order)
    for node in network.graph.nodes:
        if not node.all_input_nodes or not works_in_place(network, node):
            continue
        overwritten = node.all_input_nodes[0]
        later = [user for user in overwritten.users if order[user] > order[node] and not is_shape_query(user)]
        if node.users and not later:
            continue
        told = "its result is not used" if not node.users else f"{later[0].name} reads it afterwards"
        raise LegalityError(
            f"{node.name} overwrites {overwritten.name} in place, and {told}. A traced network knows the "
            "results of operations alone: write x = relu(x), or x = x + y, and go on with x."
        )


def _check_assignments(network: fx.GraphModule, order: dict[fx.Node, int]) -> None:
    """Refuse views of a tensor that are read after a part of it was assigned to."""
    for node in network.graph.nodes:
        before = node.meta.get(OVERWRITES)
        if before is None:
            continue
        wholes = [] if WRITTEN_BACK in node.meta else list(_wholes(network, before))
        for view in [before, *_views(network, before), *wholes]:
            later = [user for user in view.users if order[user] > order[node] and not is_shape_query(user)]
            if later:
                raise LegalityError(
                    f"A part of {before.name} is assigned to, and {later[0].name} reads {view.name}, which "
                    "shares its memory, afterwards. A traced network knows the results of operations alone: "
                    "take views after the assignment, or put the tensor together by torch.cat."
                )


def _wholes(network: fx.GraphModule, view: fx.Node) -> Iterator[fx.Node]:
    """What a view is of, and that of; other parts of it need not overlap."""
    while _is_part(view) or is_reshape(network, view) or _is_cut(view):
        view = view.all_input_nodes[0]
        yield view


def _is_part(node: fx.Node) -> bool:
    """By numbers and slices; places in lists and tensors are copied."""
    if node.target is not operator.getitem:
        return False
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    return not any(isinstance(part, list | fx.Node) for part in index)


def _views(network: fx.GraphModule, node: fx.Node) -> Iterator[fx.Node]:
    for user in node.users:
        if user.target is operator.getitem or is_reshape(network, user) or _is_cut(user):
            yield user
            yield from _views(network, user)


def _is_cut(node: fx.Node) -> bool:
    return called_name(node) in ("chunk", "split", "split_with_sizes", "unbind", "expand", "narrow", "select")


def works_in_place(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node overwrites the first of its inputs."""
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    if node.op not in ("call_method", "call_function"):
        return False
    name = called_name(node)
    in_place = name in ("iadd", "imul", "isub") or (name.endswith("_") and not name.startswith("_"))
    return in_place or bool(node.kwargs.get("inplace", False))
