"""Sizes beside a trace: images of two batch sizes, as shapes without values, go through forward with it.

What comes out alike for both is a number for the tracer (every size but the batch's, and all that is computed
from such sizes); what differs stays a value of the graph. Whoever asks whether such a value is true asks for
something that depends on the batch, or on the images themselves.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, fx, nn

from saq_qat.quant.trace.assignment import with_part
from saq_qat.quant.trace.fakes import Fakes, without_values
from saq_qat.quant.trace.size_rules import META, size_rule

__all__ = [
    "OVERWRITES",
    "WRITTEN_BACK",
    "ImageShape",
    "ShapeFollower",
    "SizedProxy",
    "Sizes",
    "known",
    "shapes_of",
    "sizes_of_the_graph",
]

ImageShape = tuple[int, int, int]
"""(C, H, W)."""

OVERWRITES = "saq_qat.overwrites"
"""Of a node that stands for a tensor since a part of it was assigned to: the one that stood for it before."""
WRITTEN_BACK = "saq_qat.written_back"
"""Of such a node for a part of another tensor, which has been assigned to in its turn."""
_BATCHES = (2, 3)
_MANY = 10**9
_MAKERS = ("empty", "ones", "rand", "randn", "zeros")
_NOTED = "saq_qat.shapes"
_PLAIN = (bool, int, float, str, torch.dtype, type(None))
_COMPARISONS: frozenset[object] = frozenset(
    {operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge}
)


class Sizes(tuple[Any, ...]):
    """The shape of a tensor: numbers, and values of the graph for what depends on the batch."""

    def numel(self) -> Any:
        """The number of elements."""
        total: Any = 1
        for size in self:
            total = total * size
        return total


class ShapeFollower:
    """Computes every node for both batches, on tensors without values.

    Attributes:
        busy: a layer is being run; calls inside it belong to nobody's graph.
    """

    def __init__(self, root: nn.Module, image: ImageShape) -> None:
        self.root, self.image = root, image
        self.busy = False

    @functools.cached_property
    def _fakes(self) -> Fakes:
        return Fakes()

    def note(self, node: fx.Node) -> tuple[Any, Any] | None:
        """The node's value for both batches, kept with it; None where it cannot be told."""
        values = [self._value(node, index) for index in range(len(_BATCHES))]
        pair = None if any(value is NotImplemented for value in values) else (values[0], values[1])
        node.meta[_NOTED] = pair
        return pair

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self.busy, before = True, self.busy
        try:
            yield
        finally:
            self.busy = before

    def _value(self, node: fx.Node, index: int) -> Any:
        """NotImplemented if an input is not known, or the operation does not run on shapes alone."""
        if any(shapes_of(term) is None for term in node.all_input_nodes):
            return NotImplemented

        def argument(term: fx.Node) -> Any:
            return (shapes_of(term) or _BATCHES)[index]

        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), argument)
        # The user's own layers may do anything with a tensor that has no values.
        with self._inside(), suppress(Exception):
            ruled = self._by_rule(node, args, kwargs, _BATCHES[index])
            return self._fakes.run(self._called(node), args, kwargs) if ruled is NotImplemented else ruled
        return NotImplemented

    def _by_rule(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int) -> Any:
        """NotImplemented where no rule tells the result, or it refuses the arguments."""
        if node.op == "placeholder":
            return torch.empty(batch, *self.image, device=META)
        if node.op == "get_attr":
            return without_values(operator.attrgetter(str(node.target))(self.root))
        # A rule may be handed anything.
        with suppress(Exception):
            return size_rule(self.root, node)(*args, **kwargs)
        return NotImplemented

    def _called(self, node: fx.Node) -> Callable[..., Any]:
        """What a node does with its arguments."""
        name = str(node.target)
        if node.op == "call_method":
            return lambda tensor, *rest, **named: getattr(tensor, name)(*rest, **named)
        if node.op == "call_module":
            return self.root.get_submodule(name).forward
        function: Callable[..., Any] = node.target  # type: ignore[assignment]  # of a call_function
        return function


@contextmanager
def sizes_of_the_graph() -> Iterator[None]:
    """Let tensors that are no values of the graph be made for its batch, or spread over it.

    Neither ``tensor.expand(batch, -1)`` nor ``torch.zeros(batch, 4)`` takes a value of the graph as a size
    (torch 2.15).
    """
    expand, makers = Tensor.expand, {maker: getattr(torch, maker) for maker in _MAKERS}

    def recorded(tensor: Tensor, *sizes: Any, **named: Any) -> Any:
        batch = next((size for size in sizes if isinstance(size, fx.Proxy)), None)
        if batch is None:
            return expand(tensor, *sizes, **named)
        return batch.tracer.create_proxy("call_method", "expand", (tensor, *sizes), named)

    Tensor.expand = recorded  # type: ignore[assignment,method-assign]  # as fx does with modules while it traces
    for name, maker in makers.items():
        setattr(torch, name, _recording(maker))
    try:
        yield
    finally:
        Tensor.expand = expand  # type: ignore[method-assign]  # back again
        for name, maker in makers.items():
            setattr(torch, name, maker)


def _recording(maker: Callable[..., Any]) -> Callable[..., Any]:
    """``maker``, whose sizes may be values of the graph."""

    @functools.wraps(maker)
    def made(*sizes: Any, **named: Any) -> Any:
        listed = len(sizes) == 1 and isinstance(sizes[0], tuple | list)
        shape = tuple(sizes[0]) if listed else sizes
        value = next((size for size in shape if isinstance(size, fx.Proxy)), None)
        if value is None:
            return maker(*sizes, **named)
        return value.tracer.create_proxy("call_function", maker, (shape,), named)

    return made


def shapes_of(node: fx.Node) -> tuple[Any, Any] | None:
    """What a node gives for the two batches: tensors without values, numbers, or tuples of them."""
    found: tuple[Any, Any] | None = node.meta.get(_NOTED)
    return found


def known(proxy: fx.Proxy) -> Any:
    """The number, or the tuple of sizes, that ``proxy`` stands for whatever the batch; else ``proxy``."""
    pair = shapes_of(proxy.node)
    if pair is None:
        return proxy
    first, second = pair
    if isinstance(first, _PLAIN) and type(first) is type(second) and first == second:
        return proxy if _depends_on_batch(proxy.node) else first
    if isinstance(first, torch.Size) and isinstance(second, torch.Size) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return Sizes(size if size == other else _part(proxy, at) for at, (size, other) in pairs)
    return proxy


def _part(proxy: fx.Proxy, index: int) -> fx.Proxy:
    return proxy.tracer.create_proxy("call_function", operator.getitem, (proxy, index), {})


def _depends_on_batch(node: fx.Node) -> bool:
    """Whether a comparison of sizes, which are linear in the batch, is true for some batches alone."""
    sides = [shapes_of(term) if isinstance(term, fx.Node) else (term, term) for term in node.args]
    numbers = [_numbers(side) for side in sides]
    if node.target not in _COMPARISONS or len(sides) != len(_BATCHES) or None in numbers:
        return False
    (a, b), (c, d) = (pair for pair in numbers if pair is not None)
    first, step = a - c, (b - d) - (a - c)  # of the two sides: for two images, and for each one more
    compare: Callable[[float, float], bool] = node.target  # type: ignore[assignment]  # a comparison
    answers = {compare(first + step * (batch - _BATCHES[0]), 0) for batch in (1, _BATCHES[0], _MANY)}
    equal_for = _BATCHES[0] - first / step if step else 0.0
    is_met = equal_for >= 1 and equal_for.is_integer()
    return len(answers) > 1 or (compare in (operator.eq, operator.ne) and is_met)


def _numbers(side: Any) -> tuple[float, float] | None:
    is_pair = side is not None and all(isinstance(value, int | float) for value in side)
    return (float(side[0]), float(side[1])) if is_pair else None


class _DeviceProxy(fx.proxy.Attribute):
    """The device of a tensor: a value of the graph where it is handed on, that of the trace where it is read.

    A network may run on any device, and asks for the name of one to keep tables by it, or for autocast.
    """

    @property
    def type(self) -> str:
        return "cpu"

    @property
    def index(self) -> None:
        return None

    def __str__(self) -> str:
        return self.type

    def __eq__(self, other: object) -> bool:
        return str(other).partition(":")[0] == self.type

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.type)


class SizedProxy(fx.Proxy):
    """A value of the graph whose sizes are known."""

    def __getattr__(self, k: str) -> Any:
        if k == "device":
            return _DeviceProxy(self, k)
        pair = shapes_of(self.node)
        if pair is None or callable(getattr(pair[0], k, None)):
            return super().__getattr__(k)
        return self.tracer.create_proxy("call_function", getattr, (self, k), {})

    def __getitem__(self, index: Any) -> Any:
        made = self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})
        pair, parts = shapes_of(self.node), index if isinstance(index, tuple) else (index,)
        shares_memory = all(isinstance(part, int | slice | type(...)) for part in parts)
        if isinstance(made, SizedProxy) and shares_memory and pair and isinstance(pair[0], Tensor):
            vars(made)["part_of"] = (self, index)
        return made

    def zero_(self) -> Any:
        """Of a part, as an assignment to it."""
        return self.fill_(0)

    def fill_(self, value: Any) -> Any:
        """As ``zero_``."""
        if "part_of" not in vars(self):
            return self.tracer.create_proxy("call_method", "fill_", (self, value), {})
        whole, index = vars(self)["part_of"]
        whole[index] = value
        return whole[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        """From here on, this is the tensor with its part replaced."""
        pair = shapes_of(self.node)
        if pair is None or not all(isinstance(tensor, Tensor) for tensor in pair):
            raise TypeError("a part of a tensor of unknown shape is assigned to")
        of_value = shapes_of(value.node) if isinstance(value, fx.Proxy) else None
        if isinstance(value, Tensor) or (isinstance(value, fx.Proxy) and of_value is None):
            raise TypeError("what is assigned to a part of a tensor has no known shape")
        before, self.node = self.node, with_part(self, pair, index, value, of_value).node
        self.node.meta[OVERWRITES] = before
        if "part_of" in vars(self):
            whole, place = vars(self)["part_of"]
            whole[place] = self
            self.node.meta[WRITTEN_BACK] = True

    def __len__(self) -> int:
        pair = shapes_of(self.node)
        lengths = set() if pair is None else {_length(value) for value in pair}
        if len(lengths) == 1 and None not in lengths:
            return int(lengths.pop() or 0)
        return super().__len__()


def _length(value: object) -> int | None:
    if isinstance(value, Tensor):
        return value.shape[0] if value.dim() else None
    return len(value) if isinstance(value, tuple | list) else None
