"""Activation quantizers of a file: scale, zero point, bounds of codes and offset, beside the checkpoint's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from saq_qat_export.proof.numbers.file import CARRIERS, GraphFile
from saq_qat_export.proof.numbers.tally import Tally
from saq_qat_export.proof.numbers.trained import ExpectedQuantizer, Trained

__all__ = ["QuantizerComparison"]

Array = npt.NDArray[Any]

_SUFFIXES = (".codes", ".unclipped")
_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "Softmax"})
_KEEPS_SIGN = CARRIERS | {"DequantizeLinear", "GlobalAveragePool", "MaxPool"}


@dataclass(frozen=True)
class _Stored:
    """How a QuantizeLinear stores codes; ``zero_point`` is the one it must have."""

    expected: ExpectedQuantizer
    scale: Array
    zero_point: int
    dtype: str


class QuantizerComparison:
    """Compares every QuantizeLinear, what bounds it, and every DequantizeLinear of computed codes.

    Attributes:
        names: of the quantizer behind each QuantizeLinear, by the QuantizeLinear's output.
        seen: quantizers that the file has.
    """

    def __init__(self, file: GraphFile, trained: Trained, tally: Tally) -> None:
        self.file, self.trained, self.tally = file, trained, tally
        self.stored: dict[str, _Stored] = {}
        self.names: dict[str, str] = {}
        self.seen: set[str] = set()

    def run(self) -> None:
        """Compare all of them."""
        for node in self.file.nodes:
            if node.op_type == "QuantizeLinear":
                self._quantize(node)
        for node in self.file.nodes:
            if node.op_type == "DequantizeLinear" and node.input[0] not in self.file.constants:
                self._dequantize(node)

    def read_by(self, node: onnx.NodeProto, index: int = 0) -> str | None:
        """Name of the quantizer whose codes an input stands for, through carriers; None for floats."""
        dequantize = self.file.source(node, index)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return None
        quantize = self._quantizer_of(dequantize)
        return None if quantize is None else self.names.get(quantize.output[0])

    def _quantizer_of(self, dequantize: onnx.NodeProto) -> onnx.NodeProto | None:
        node = self.file.source(dequantize)
        if node is not None and node.op_type == "Clip":
            node = self.file.source(node)
        return node if node is not None and node.op_type == "QuantizeLinear" else None

    def _quantize(self, node: onnx.NodeProto) -> None:
        name = self._name(node)
        expected = self.trained.quantizers.get(name)
        if expected is None:
            self.tally.differ("a quantizer", node.output[0], "no record", "a QuantizeLinear")
            return
        scale, zero_point = self._numbers(node)
        what = f"scale of quantizer {name}"
        self.tally.equal(what, node.input[1], _as_stored(expected.scale, self.file.half), scale)
        dtype = str(zero_point.dtype)
        is_own = node.output[0].endswith(_SUFFIXES)
        if zero_point.size != 1 or dtype not in _LIMITS:
            self.tally.differ(
                f"zero point of quantizer {name}", self.file.name(node, 2), "one of 8 bits", zero_point
            )
            return
        stored = _Stored(expected, scale, self._zero_point(name, expected, dtype, is_own=is_own), dtype)
        self.stored[node.output[0]], self.names[node.output[0]] = stored, name
        self.tally.equal(
            f"zero point of quantizer {name}", self.file.name(node, 2), stored.zero_point, int(zero_point)
        )
        if is_own:
            self.seen.add(name)
            self._offset(node, name, expected)
        if is_own and name not in self.trained.records.repeated:
            self._bounds(node, name, stored)
        else:
            self._holds_all(node, name, stored)

    def _zero_point(self, name: str, expected: ExpectedQuantizer, dtype: str, *, is_own: bool) -> int:
        """What code 0 is stored as: unsigned types have room for the smallest code, those in between for all
        8 bits of signed ones, and behind a max pool it is what it was before."""
        source = self.trained.records.repeated.get(name)
        known = [other for output, other in self.stored.items() if self.names[output] == source]
        if known:
            return known[0].zero_point
        if dtype == "int8":
            return 0
        return -min(expected.minimum, 0) if is_own else 128

    def _name(self, node: onnx.NodeProto) -> str:
        """By the name of its codes; one in between stores codes otherwise, for the quantizer behind it."""
        output = node.output[0]
        for suffix in _SUFFIXES:
            if output.endswith(suffix):
                return str(output.removesuffix(suffix))
        readers = [(n, i) for n, i in self.file.uses(output) if n.op_type == "DequantizeLinear"]
        if len(readers) != 1:
            return str(output)
        behind = [reader for reader, _ in self.file.uses(readers[0][0].output[0])]
        if len(behind) != 1 or behind[0].op_type != "QuantizeLinear":
            return str(output)
        return self._name(behind[0])

    def _numbers(self, node: onnx.NodeProto) -> tuple[Array, Array]:
        scale, zero_point = self.file.value(node, 1), self.file.value(node, 2)
        if scale is None:
            scale = np.array(np.nan, np.float32)
        return scale, np.zeros((), np.uint8) if zero_point is None else zero_point

    def _bounds(self, node: onnx.NodeProto, name: str, stored: _Stored) -> None:
        """Of codes behind QuantizeLinear, or of floats before it; saturation is a bound too."""
        low, high = (limit - stored.zero_point for limit in _LIMITS[stored.dtype])
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

    def _bounded_before(self, node: onnx.NodeProto, name: str, stored: _Stored) -> bool:
        """Compare the floats that a Clip before QuantizeLinear has; whether there is none."""
        clip = self.file.writer(node)
        if clip is None or clip.op_type != "Clip":
            return True
        scale = _single(stored.expected.scale)
        if self._needs_no_clip(clip, stored) and not self._is_at_codes(clip, stored, scale):
            return True  # the network's own, whose numbers are those of a float operation
        for index, kind, code in (
            (1, "lower", stored.expected.minimum),
            (2, "upper", stored.expected.maximum),
        ):
            bound = self.file.value(clip, index)
            own = _as_stored(np.float32(scale * np.float32(code)), self.file.half)
            found = np.array(np.nan) if bound is None else bound
            tighter = found > own if kind == "lower" else found < own
            if np.all(tighter) and self._is_of_network(found):
                own = found  # a clip of the network's own, made one with the quantizer's
            self.tally.equal(f"{kind} bound of quantizer {name}", self.file.name(clip, index), own, found)
        return False

    def _is_of_network(self, bound: Array) -> bool:
        """Whether the network computes with this number somewhere."""
        numbers = (number for record in self.trained.records.floats for number in record.numbers)
        return any(np.array_equal(bound, _as_stored(number, self.file.half)) for number in numbers)

    def _needs_no_clip(self, before: onnx.NodeProto, stored: _Stored) -> bool:
        """Whether saturation, or values that cannot be negative, bound the codes already."""
        low, high = (limit - stored.zero_point for limit in _LIMITS[stored.dtype])
        expected = stored.expected
        from_zero = expected.minimum == 0 and self._is_never_negative(before)
        return expected.maximum == high and (expected.minimum == low or from_zero)

    def _is_at_codes(self, clip: onnx.NodeProto, stored: _Stored, scale: np.float32) -> bool:
        """Whether a Clip has the smallest and largest code's values."""
        bounds = ((1, stored.expected.minimum), (2, stored.expected.maximum))
        found = [(self.file.value(clip, index), scale * np.float32(code)) for index, code in bounds]
        half = self.file.half
        return all(b is not None and np.array_equal(b, _as_stored(own, half)) for b, own in found)

    def _float_bounds(self, node: onnx.NodeProto, stored: _Stored, low: int, high: int) -> tuple[int, int]:
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
                quantize = self._quantizer_of(found)
                stored = None if quantize is None else self.stored.get(quantize.output[0])
                return stored is not None and stored.expected.minimum >= 0
            found = self.file.writer(found)
        if found is None:
            return False
        if found.op_type == "Clip":
            low = self.file.constants.get(self.file.name(found, 1))
            return low is not None and bool(np.all(low >= 0))
        return found.op_type in _NEVER_NEGATIVE

    def _holds_all(self, node: onnx.NodeProto, name: str, stored: _Stored) -> None:
        """Codes stored again, unbounded: the type has room for every one of them."""
        low, high = (limit - stored.zero_point for limit in _LIMITS[stored.dtype])
        if low > stored.expected.minimum or high < stored.expected.maximum:
            expected = f"{stored.expected.minimum}..{stored.expected.maximum}"
            self.tally.differ(
                f"codes of quantizer {name}", self.file.name(node, 2), expected, f"{low}..{high}"
            )

    def _offset(self, node: onnx.NodeProto, name: str, expected: ExpectedQuantizer) -> None:
        """What is taken off before QuantizeLinear; a max pool passes values on that have lost theirs."""
        if expected.offset is None or name in self.trained.records.repeated:
            return
        before = self.file.writer(node)
        if before is not None and before.op_type in ("Clip", "Relu"):
            before = self.file.writer(before)
        found = None if before is None or before.op_type != "Sub" else self.file.value(before, 1)
        if before is None or found is None:
            self.tally.differ(f"offset of quantizer {name}", node.input[0], expected.offset, "no subtraction")
            return
        own = _as_stored(expected.offset, self.file.half)
        self.tally.equal(f"offset of quantizer {name}", self.file.name(before, 1), own, found)

    def _dequantize(self, node: onnx.NodeProto) -> None:
        quantize = self._quantizer_of(node)
        stored = None if quantize is None else self.stored.get(quantize.output[0])
        scale, zero_point = self._numbers(node)
        if quantize is None or stored is None:
            self.tally.differ("codes", node.input[0], "no record", "a DequantizeLinear")
            return
        name = self.names[quantize.output[0]]
        where = f"of {name}, read as {node.output[0]}"
        if node.input[1] != quantize.input[1]:  # else it was compared there
            own = _as_stored(stored.expected.scale, self.file.half)
            self.tally.equal(f"scale {where}", node.input[1], own, scale)
        self.tally.equal(f"zero point {where}", self.file.name(node, 2), stored.zero_point, int(zero_point))
        if stored.expected.offset is not None:
            for reader, index in self.file.uses(node.output[0]):
                self._put_back(reader, index, name, stored.expected.offset)

    def _put_back(self, reader: onnx.NodeProto, index: int, name: str, offset: np.float32) -> None:
        """Layers hold the offset in their bias, max pools keep what lacks it; anybody else must add it."""
        if reader.op_type in ("Conv", "Gemm", "MaxPool", "Shape"):
            return
        found = self.file.value(reader, 1 - index) if reader.op_type == "Add" else None
        if found is None:
            self.tally.differ(f"offset of {name}", reader.name, offset, f"{reader.op_type} without it")
            return
        tensor = self.file.name(reader, 1 - index)
        self.tally.equal(f"offset of {name}", tensor, _as_stored(offset, self.file.half), found)


def _single(value: Any) -> np.float32:
    return np.float32(value)


def _as_stored(value: Any, half: bool) -> Any:
    """A float32 as the file has it: rounded to float16 where floats are that."""
    single = np.asarray(value, np.float32)
    return single.astype(np.float16).astype(np.float32) if half else single
