"""Bounds of codes in a file, stated on codes, on the floats before them, or by what makes these."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from saq_qat_export.proof.numbers.file import CARRIERS, GraphFile
from saq_qat_export.proof.numbers.tally import Tally
from saq_qat_export.proof.numbers.trained import ExpectedQuantizer, Trained

__all__ = ["LIMITS", "BoundsComparison", "StoredCodes"]

Array = npt.NDArray[Any]

LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
"""Smallest and largest number of the types that codes are stored as."""

_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "Softmax"})
_KEEPS_SIGN = CARRIERS | {
    "AveragePool", "DepthToSpace", "DequantizeLinear", "Dropout", "Expand", "Gather", "GlobalAveragePool",
    "MaxPool", "ReduceMax", "ReduceMean", "Slice", "SpaceToDepth", "Split", "Tile", "Where",
}  # fmt: skip  # one value a line is a page


@dataclass(frozen=True)
class StoredCodes:
    """How a QuantizeLinear stores codes; ``zero_point`` is the one it must have."""

    expected: ExpectedQuantizer
    zero_point: int
    dtype: str


class BoundsComparison:
    """Compares the smallest and largest code of one quantizer at a time.

    Args:
        stored: of the QuantizeLinear nodes met so far, by output.
    """

    def __init__(
        self, file: GraphFile, trained: Trained, tally: Tally, stored: Mapping[str, StoredCodes]
    ) -> None:
        self.file, self.trained, self.tally, self.stored = file, trained, tally, stored

    def compare(self, node: onnx.NodeProto, name: str, stored: StoredCodes) -> None:
        """Of codes behind QuantizeLinear, or of floats before it; saturation is a bound too."""
        low, high = (limit - stored.zero_point for limit in LIMITS[stored.dtype])
        clip = [reader for reader, index in self.file.uses(node.output[0]) if reader.op_type == "Clip"]
        tensor = node.output[0]
        if clip:
            bounds = [self.file.value(clip[0], index) for index in (1, 2)]
            low, high = (
                limit if bound is None else int(bound) - stored.zero_point
                for bound, limit in zip(bounds, (low, high), strict=True)
            )
            tensor = self.file.name(clip[0], 2)
            if list(self.file.uses(node.output[0])) != [(clip[0], 0)]:
                self.tally.differ(f"codes of quantizer {name}", node.output[0], "bounded", "read unbounded")
        elif not self._bounded_before(node, name, stored):
            return
        else:
            low, high = self._float_bounds(node, stored, low, high)
        self.tally.equal(f"smallest code of quantizer {name}", tensor, stored.expected.minimum, low)
        self.tally.equal(f"largest code of quantizer {name}", tensor, stored.expected.maximum, high)

    def _bounded_before(self, node: onnx.NodeProto, name: str, stored: StoredCodes) -> bool:
        """Compare the floats that a Clip before QuantizeLinear has; whether there is none."""
        clip = self.file.bound_before(node)
        if clip is None or clip.op_type != "Clip":
            return True
        scale = np.float32(stored.expected.scale)
        if self._needs_no_clip(clip, stored) and not self._is_at_codes(clip, stored, scale):
            return True  # the network's own, whose numbers are those of a float operation
        for index, kind, code in (
            (1, "lower", stored.expected.minimum),
            (2, "upper", stored.expected.maximum),
        ):
            bound = self.file.value(clip, index)
            own = self.file.as_stored(np.float32(scale * np.float32(code)))
            found = np.array(np.nan) if bound is None else bound
            tighter = found > own if kind == "lower" else found < own
            if np.all(tighter) and self._is_of_network(found):
                own = found  # a clip of the network's own, made one with the quantizer's
            self.tally.equal(f"{kind} bound of quantizer {name}", self.file.name(clip, index), own, found)
        return False

    def _is_of_network(self, bound: Array) -> bool:
        """Whether the network computes with this number somewhere."""
        numbers = (number for record in self.trained.records.floats for number in record.numbers)
        return any(np.array_equal(bound, self.file.as_stored(number)) for number in numbers)

    def _needs_no_clip(self, before: onnx.NodeProto, stored: StoredCodes) -> bool:
        """Whether saturation, or values that cannot be negative, bound the codes already."""
        low, high = (limit - stored.zero_point for limit in LIMITS[stored.dtype])
        expected = stored.expected
        from_zero = expected.minimum == 0 and self._is_never_negative(before)
        return expected.maximum == high and (expected.minimum == low or from_zero)

    def _is_at_codes(self, clip: onnx.NodeProto, stored: StoredCodes, scale: np.float32) -> bool:
        """Whether a Clip has the smallest and largest code's values."""
        bounds = ((1, stored.expected.minimum), (2, stored.expected.maximum))
        found = [(self.file.value(clip, index), scale * np.float32(code)) for index, code in bounds]
        return all(b is not None and np.array_equal(b, self.file.as_stored(own)) for b, own in found)

    def _float_bounds(
        self, node: onnx.NodeProto, stored: StoredCodes, low: int, high: int
    ) -> tuple[int, int]:
        """A Relu, or values that cannot be negative, bound codes at 0."""
        before = self.file.writer(node)
        if (
            stored.expected.minimum == 0
            and low < 0
            and before is not None
            and self._is_never_negative(before)
        ):
            return 0, high
        return low, high

    def _is_never_negative(self, node: onnx.NodeProto) -> bool:
        found: onnx.NodeProto | None = node
        while found is not None and found.op_type in _KEEPS_SIGN:
            if found.op_type == "DequantizeLinear":
                quantize = self.file.quantizer_before(found)
                stored = None if quantize is None else self.stored.get(quantize.output[0])
                return stored is not None and stored.expected.minimum >= 0
            found = self.file.writer(found, 1 if found.op_type == "Where" else 0)
        if found is None:
            return False
        if found.op_type == "Clip":
            low = self.file.constants.get(self.file.name(found, 1))
            return low is not None and bool(np.all(low >= 0))
        return found.op_type in _NEVER_NEGATIVE
