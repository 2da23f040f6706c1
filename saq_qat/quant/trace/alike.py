"""What is computed once an image without looking at it, such as positions of shape (B, C, H, W).

Every image of a batch gets the same, so a batch of one is enough; spread over a batch, such a value would be
no constant, and layers that compute it would seem to read images.
"""

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from saq_qat.quant.trace.constants import is_device, is_random
from saq_qat.quant.trace.graph import is_shape_query, module_of
from saq_qat.quant.trace.modes import FollowsMode, depends_on_mode
from saq_qat.quant.trace.operations import called_name
from saq_qat.quant.trace.sizes import shapes_of

__all__ = ["compute_alike_once"]

_BATCHES = (2, 3)
_ROUNDING = 1e-4
_SPREADING = frozenset({"expand", "expand_as", "repeat"})
_BROADCASTING = frozenset({"add", "iadd", "sub", "isub", "mul", "imul", "truediv", "itruediv", "div", "rsub"})


def compute_alike_once(network: fx.GraphModule) -> None:
    """Compute for one image, in place, whatever depends on the number of images and on no value of theirs.

    Sums and products spread the result over the batch by themselves; other readers get it repeated.
    """
    nodes = list(network.graph.nodes)
    sizes = _sizes(nodes)
    members = _made_of(network, sizes)
    fixed = _made_of(network, set())
    exits = [
        node
        for node in nodes
        if node in members - fixed and called_name(node) not in _SPREADING and _leads_with_batch(node)
        if any(user not in members for user in node.users)
    ]
    computed = _ancestors(exits, members)
    whole = computed - fixed - set(exits)
    is_apart = all(user in computed for node in whole for user in node.users)
    if not exits or not is_apart or not _is_alike(network, computed, exits):
        return
    for node in computed:
        for term in [term for term in node.all_input_nodes if term in sizes]:
            node.replace_input_with(term, _size(term, 1))
    for node in exits:
        _spread(network.graph, node, computed)
    network.graph.lint()


def _sizes(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Numbers computed from the shapes of tensors: plain ones, of known value for two and three images."""
    found: set[fx.Node] = set()
    for node in nodes:
        of_sizes = bool(node.all_input_nodes) and found.issuperset(node.all_input_nodes)
        numbers = shapes_of(node) is not None and all(_is_number(value) for value in shapes_of(node) or ())
        is_part = node.op == "call_function" and node.target is operator.getitem
        if is_shape_query(node) or (of_sizes and (numbers or is_part)) or (numbers and is_part):
            found.add(node)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _made_of(network: fx.GraphModule, sizes: set[fx.Node]) -> set[fx.Node]:
    """Tensors made of parameters, constants and ``sizes`` alone, alike in training and evaluation."""
    found: set[fx.Node] = set()
    for node in network.graph.nodes:
        module = module_of(network, node)
        follows_mode = module is not None and (isinstance(module, FollowsMode) or depends_on_mode(module))
        if node in sizes or node.op in ("placeholder", "output") or is_random(node) or follows_mode:
            continue
        if is_device(node) or all(term in sizes or term in found for term in node.all_input_nodes):
            found.add(node)
    return found


def _leads_with_batch(node: fx.Node) -> bool:
    """(B, ...), and the same whatever the batch but for that."""
    pair = shapes_of(node)
    if pair is None or not all(isinstance(value, Tensor) and value.dim() for value in pair):
        return False
    first, second = (tuple(value.shape) for value in pair)
    return (first[0], second[0]) == _BATCHES and first[1:] == second[1:]


def _ancestors(exits: list[fx.Node], members: set[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    open_nodes = list(exits)
    while open_nodes:
        node = open_nodes.pop()
        if node not in found and not is_device(node):
            found.add(node)
            open_nodes += [term for term in node.all_input_nodes if term in members]
    return found


def _size(node: fx.Node, batch: int) -> Any:
    """A size, or a shape, for this number of images, in which they are linear."""
    first, second = shapes_of(node) or (0, 0)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return tuple(a + (b - a) * (batch - _BATCHES[0]) for a, b in zip(first, second, strict=True))
    return first + (second - first) * (batch - _BATCHES[0])


@torch.no_grad()
def _is_alike(network: fx.GraphModule, computed: set[fx.Node], exits: list[fx.Node]) -> bool:
    """Whether every image of a batch really gets what one alone would."""
    one, *others = (_evaluated(network, computed, batch) for batch in (1, *_BATCHES))
    return all(_is_close(found[node], one[node]) for found in others for node in exits)


def _is_close(many: Tensor, one: Tensor) -> bool:
    """Up to float32 sums in another order, which kernels choose by the batch; terms may cancel."""
    one, many = one.double(), many.double()
    allowed = _ROUNDING * float(one.nan_to_num().abs().max())
    return torch.allclose(many, one.expand_as(many), rtol=0, atol=allowed, equal_nan=True)


def _evaluated(network: fx.GraphModule, computed: set[fx.Node], batch: int) -> dict[fx.Node, Any]:
    interpreter = fx.Interpreter(network)
    values: dict[fx.Node, Any] = {}

    def value(term: fx.Node) -> Any:
        if is_device(term):
            return torch.device("cpu")
        return values[term] if term in values else _size(term, batch)

    for node in network.graph.nodes:
        if node in computed:
            args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), value)
            values[node] = getattr(interpreter, node.op)(node.target, args, kwargs)
    return values


def _spread(graph: fx.Graph, node: fx.Node, computed: set[fx.Node]) -> None:
    readers = [user for user in node.users if user not in computed]
    if all(_broadcasts(reader, node) for reader in readers):
        return
    image = next(term for term in graph.nodes if term.op == "placeholder")
    rank = (shapes_of(node) or (torch.empty(0),))[0].dim()
    with graph.inserting_after(node):
        batch = graph.call_method("size", (image, 0))
    with graph.inserting_after(batch):
        repeated = graph.call_method("expand", (node, batch, *[-1] * (rank - 1)))
    for reader in readers:
        reader.replace_input_with(node, repeated)


def _broadcasts(reader: fx.Node, node: fx.Node) -> bool:
    """A sum, or the like, with a tensor that has the batch and as many axes."""
    name = called_name(reader)
    others = [term for term in reader.all_input_nodes if term is not node]
    overwrites_it = name.startswith("i") and reader.args[0] is node
    if name.strip("_") not in _BROADCASTING or len(others) != 1 or overwrites_it:
        return False
    shapes, own = shapes_of(others[0]), shapes_of(node)
    return (
        shapes is not None
        and own is not None
        and _leads_with_batch(others[0])
        and (shapes[0].dim() == own[0].dim())
    )
