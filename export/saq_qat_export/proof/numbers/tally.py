"""What was compared, and what differs: the outcome of comparing a file's numbers with a checkpoint's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "Tally"]

Array = npt.NDArray[Any]

_LISTED = 8


@dataclass(frozen=True)
class Difference:
    """Numbers of one kind and place that differ.

    Attributes:
        what: kind of number and whose it is.
        tensor: its name in the file; empty for an attribute.
        index: of the first that differs.
        expected: what the checkpoint gives. found: what the file has there.
        count: how many differ.
    """

    what: str
    tensor: str
    index: tuple[int, ...]
    expected: str
    found: str
    count: int = 1

    def __str__(self) -> str:
        place = f" ({self.tensor}{list(self.index) if self.index else ''})" if self.tensor else ""
        more = f", and {self.count - 1:,} more" if self.count > 1 else ""
        return f"{self.what}{place}: {self.expected} by the checkpoint, {self.found} in the file{more}"


@dataclass
class Tally:
    """Collects comparisons.

    Attributes:
        compared: numbers.
        constant_channels: channels that the file stores as their bias alone, which the checkpoint explains.
    """

    compared: int = 0
    constant_channels: int = 0
    differences: list[Difference] = field(default_factory=list)

    def equal(self, what: str, tensor: str, expected: object, found: object) -> bool:
        """Compare arrays of one shape, or single numbers, exactly; whether they are equal."""
        own, theirs = np.asarray(expected), np.asarray(found)
        if own.shape != theirs.shape:
            return self.differ(what, tensor, f"shape {own.shape}", f"shape {theirs.shape}")
        return self.matches(what, tensor, own, theirs, own == theirs)

    def matches(self, what: str, tensor: str, expected: Array, found: Array, right: Array) -> bool:
        """Count arrays of one shape, right where ``right`` says so."""
        self.compared += expected.size
        wrong = np.argwhere(~np.asarray(right))
        if not len(wrong):
            return True
        index = tuple(int(i) for i in wrong[0])
        self.differences.append(
            Difference(what, tensor, index, _text(expected[index]), _text(found[index]), len(wrong))
        )
        return False

    def differ(self, what: str, tensor: str, expected: object, found: object) -> bool:
        """Note a difference that is no pair of numbers."""
        self.compared += 1
        self.differences.append(Difference(what, tensor, (), _text(expected), _text(found)))
        return False

    def first(self, count: int = _LISTED) -> Sequence[str]:
        """The first differences in words."""
        return [str(difference) for difference in self.differences[:count]]


def _text(value: object) -> str:
    if isinstance(value, np.floating):
        return f"{float(value):.9g}"
    return str(value)
