"""A node of an ONNX graph, and what is known of the tensors that it reads before anything runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.onnx_tensor import LARGEST_RANK, Attribute
from saq_qat_runtime.errors import ModelError

__all__ = [
    "BATCH",
    "Call",
    "Rule",
    "Shape",
    "TensorFacts",
    "cannot_tell",
    "has_room",
    "place",
    "require_possible",
]

Shape: TypeAlias = tuple[int, ...]

BATCH = (1 << 61) - 1
"""A prime larger than any size: the sizes that it divides grow with the batch, the others do not."""


@dataclass(frozen=True)
class TensorFacts:
    """What is known of a tensor before anything runs.

    width: bytes of an element. numbers: its elements in order, where they are known.
    constant: no input of the graph has a part in it.
    """

    shape: Shape
    width: int
    numbers: tuple[float, ...] | None = None
    constant: bool = False


@dataclass(frozen=True)
class Call:
    """One node, and what it reads: None for an input that is left out."""

    inputs: tuple[TensorFacts | None, ...]
    attributes: dict[str, Attribute]
    results: int

    def tensor(self, index: int) -> TensorFacts:
        """An input that must be there."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            cannot_tell(f"input {index} is missing")
        return found

    def shape(self, index: int = 0) -> Shape:
        return self.tensor(index).shape

    def number(self, name: str, default: int) -> int:
        found = self.attributes.get(name, default)
        require(isinstance(found, int), f"its attribute {name} must be an integer.")
        return found if isinstance(found, int) else default

    def numbers(self, name: str) -> tuple[int, ...] | None:
        found = self.attributes.get(name)
        return tuple(map(int, found)) if isinstance(found, tuple) else None

    def text(self, name: str, default: str = "") -> str:
        found = self.attributes.get(name, default)
        return found if isinstance(found, str) else default

    def values(self, index: int) -> tuple[float, ...] | None:
        """Elements of an input, None without it; raises ModelError if they are not known."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            return None
        if found.numbers is None:
            cannot_tell(f"input {index}, which says of what size, is no constant")
        return found.numbers

    def integers(self, index: int) -> Shape | None:
        """As `values`, where the operator demands integers."""
        found = self.values(index)
        return None if found is None else tuple(map(int, found))

    def axis(self, rank: int, default: int = 0, name: str = "axis") -> int:
        return place(self.number(name, default), rank)


Rule: TypeAlias = Callable[[Call], Shape | list[Shape]]
"""Shape of the first result, or of each."""


def cannot_tell(why: str) -> NoReturn:
    """Raise ModelError: the size of a result is not known beforehand."""
    raise ModelError(f"the size of its result cannot be told beforehand: {why}.")


def has_room(number: float, width: int = 8) -> bool:
    """Whether a signed integer of `width` bytes holds a number; what grows with the batch, for one image."""
    own = number // BATCH if isinstance(number, int) and number % BATCH == 0 else number
    return not isinstance(own, int) or -(1 << (8 * width - 1)) <= own < 1 << (8 * width - 1)


def require_possible(shape: Shape) -> None:
    """Raise ModelError for a shape that no tensor can have, before anything is added up by it."""
    rank = len(shape)
    require(rank <= LARGEST_RANK, f"its result has {rank:,} axes; {LARGEST_RANK} are allowed.")
    for axis, size in enumerate(shape):
        require(size >= 0, f"axis {axis} of its result is {size:,} long; sizes are 0 or more.")
        require(has_room(size), f"axis {axis} of its result is longer than 64 bits can tell.")


def place(axis: int, rank: int) -> int:
    """An axis counted from the first; raises ModelError for one that is not there."""
    require(-rank <= axis < rank, f"axis {axis} is none of {rank}.")
    return axis % rank
