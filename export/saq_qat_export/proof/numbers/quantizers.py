"""Activation quantizers of a file: scale, zero point, bounds of codes and offset, beside the checkpoint's."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from saq_qat_export.proof.numbers.bounds import LIMITS, BoundsComparison, StoredCodes
from saq_qat_export.proof.numbers.file import GraphFile
from saq_qat_export.proof.numbers.tally import Tally
from saq_qat_export.proof.numbers.trained import ExpectedQuantizer, Trained

__all__ = ["QuantizerComparison"]

Array = npt.NDArray[Any]

_SUFFIXES = (".codes", ".unclipped")


class QuantizerComparison:
    """Compares every QuantizeLinear, what bounds it, and every DequantizeLinear of computed codes.

    Attributes:
        names: of the quantizer behind each QuantizeLinear, by the QuantizeLinear's output.
        seen: quantizers that the file has.
    """

    def __init__(self, file: GraphFile, trained: Trained, tally: Tally) -> None:
        self.file, self.trained, self.tally = file, trained, tally
        self.stored: dict[str, StoredCodes] = {}
        self.names: dict[str, str] = {}
        self.seen: set[str] = set()
        self.bounds = BoundsComparison(file, trained, tally, self.stored)

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
        quantize = self.file.quantizer_before(dequantize)
        return None if quantize is None else self.names.get(quantize.output[0])

    def _quantize(self, node: onnx.NodeProto) -> None:
        name = self._name(node)
        expected = self.trained.quantizers.get(name)
        if expected is None:
            self.tally.differ("a quantizer", node.output[0], "no record", "a QuantizeLinear")
            return
        scale, zero_point = self._numbers(node)
        what = f"scale of quantizer {name}"
        self.tally.equal(what, node.input[1], self.file.as_stored(expected.scale), scale)
        dtype = str(zero_point.dtype)
        is_own = node.output[0].endswith(_SUFFIXES)
        if zero_point.size != 1 or dtype not in LIMITS:
            self.tally.differ(
                f"zero point of quantizer {name}", self.file.name(node, 2), "one of 8 bits", zero_point
            )
            return
        stored = StoredCodes(expected, self._zero_point(name, expected, dtype, is_own=is_own), dtype)
        self.stored[node.output[0]], self.names[node.output[0]] = stored, name
        self.tally.equal(
            f"zero point of quantizer {name}", self.file.name(node, 2), stored.zero_point, int(zero_point)
        )
        if is_own:
            self.seen.add(name)
            self._offset(node, name, expected)
        if is_own and name not in self.trained.records.repeated:
            self.bounds.compare(node, name, stored)
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

    def _holds_all(self, node: onnx.NodeProto, name: str, stored: StoredCodes) -> None:
        """Codes stored again, unbounded: the type has room for every one of them."""
        low, high = (limit - stored.zero_point for limit in LIMITS[stored.dtype])
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
        own = self.file.as_stored(expected.offset)
        self.tally.equal(f"offset of quantizer {name}", self.file.name(before, 1), own, found)

    def _dequantize(self, node: onnx.NodeProto) -> None:
        quantize = self.file.quantizer_before(node)
        stored = None if quantize is None else self.stored.get(quantize.output[0])
        scale, zero_point = self._numbers(node)
        if quantize is None or stored is None:
            self.tally.differ("codes", node.input[0], "no record", "a DequantizeLinear")
            return
        name = self.names[quantize.output[0]]
        where = f"of {name}, read as {node.output[0]}"
        if node.input[1] != quantize.input[1]:  # else it was compared there
            own = self.file.as_stored(stored.expected.scale)
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
        self.tally.equal(f"offset of {name}", tensor, self.file.as_stored(offset), found)
