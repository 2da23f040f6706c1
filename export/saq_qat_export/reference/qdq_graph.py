"""A QuantizeLinear/DequantizeLinear graph by names: who writes and reads a tensor, which codes it holds.

Every question about the wiring of a written graph is asked here: what a value comes from through operators
that hand numbers on, and whether a quantizer alone reads it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy.typing as npt
import onnx
from onnx import numpy_helper

from saq_qat_runtime.operators import BOUNDS, MOVES, RESHAPES, carried

__all__ = ["CodeNode", "QdqGraph"]

Array = npt.NDArray[Any]

# As `reads_codes` and `quantizer_behind` of saq_qat.quant.deploy.kernels say of the deploy view.
_KERNEL_READS = RESHAPES | {"MaxPool"}
_KERNEL_WRITES = RESHAPES | BOUNDS


@dataclass(frozen=True)
class CodeNode:
    """One QuantizeLinear or DequantizeLinear.

    Attributes:
        source, result: names of what it reads and writes.
        scale, zero_point: arrays as the file holds them; None where they are computed or left out.
    """

    node: onnx.NodeProto
    source: str
    result: str
    scale: Array | None
    zero_point: Array | None


class QdqGraph:
    """Nodes by what they write and who reads it, and what is constant; the graph must stay as it is."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = tuple(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.outputs = frozenset(value.name for value in graph.output)
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(filter(None, node.input)):
                self._readers.setdefault(name, []).append(node)

    def readers(self, name: str, *, shapes: bool = False) -> tuple[onnx.NodeProto, ...]:
        """Nodes that read a value, each once, in graph order; those that ask for its shape if ``shapes``."""
        return tuple(node for node in self._readers.get(name, ()) if shapes or node.op_type != "Shape")

    def array(self, name: str) -> Array | None:
        """Numbers of an initializer; None for anything else."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    @cached_property
    def quantizers(self) -> dict[str, CodeNode]:
        """Every QuantizeLinear by what it writes, in graph order."""
        return {found.result: found for found in self._code_nodes("QuantizeLinear")}

    @cached_property
    def dequantizers(self) -> dict[str, CodeNode]:
        """Every DequantizeLinear by what it writes, in graph order."""
        return {found.result: found for found in self._code_nodes("DequantizeLinear")}

    def _code_nodes(self, op_type: str) -> Iterator[CodeNode]:
        for node in self.nodes:
            if node.op_type == op_type:
                scale, offset = (self.array(name) for name in (*node.input[1:3], "")[:2])
                yield CodeNode(node, node.input[0], node.output[0], scale, offset)

    @cached_property
    def fixed(self) -> frozenset[str]:
        """Values that depend on no input of the graph."""
        known = set(self.constants)
        for node in self.nodes:
            if known.issuperset(filter(None, node.input)):
                known.update(node.output)
        return frozenset(known)

    @cached_property
    def codes(self) -> frozenset[str]:
        """Values that are codes of a quantizer, moved or bounded or not."""
        known: set[str] = set()
        for node in self.nodes:
            moved = carried(node.op_type, node.input) if node.op_type in MOVES | BOUNDS else ()
            if node.op_type == "QuantizeLinear" or (moved and known.issuperset(moved)):
                known.update(node.output)
        return frozenset(known)

    def dequantizer_before(self, name: str, through: frozenset[str] = _KERNEL_READS) -> CodeNode | None:
        """The DequantizeLinear whose numbers a value holds, through operators with one input of numbers."""
        while (node := self.producers.get(name)) is not None and node.op_type in through:
            name = node.input[0]
        return self.dequantizers.get(name)

    def reads_activation_codes(self, name: str) -> bool:
        """Whether a value is dequantized from computed codes, not from constants."""
        found = self.dequantizer_before(name)
        return found is not None and found.source not in self.fixed

    def quantizer_behind(
        self, name: str, through: frozenset[str] = _KERNEL_WRITES, *, shapes: bool = False
    ) -> CodeNode | None:
        """The quantizer that alone reads a value, through reshapes and bounds: a kernel then writes its
        codes. None if there is none, or if the value leaves the graph.

        Args:
            through: operators that may stand between.
            shapes: whether somebody who asks for the value's shape is another reader.
        """
        while True:
            readers = self.readers(name, shapes=shapes)
            if len(readers) != 1 or name in self.outputs or readers[0].input[0] != name:
                return None
            (reader,), name = readers, readers[0].output[0]
            if reader.op_type not in through:
                return self.quantizers.get(name)

    def bound_of_codes(self, codes: str) -> onnx.NodeProto | None:
        """The Clip that alone reads what a QuantizeLinear writes, and so narrows its codes."""
        readers = self.readers(codes)
        return readers[0] if [reader.op_type for reader in readers] == ["Clip"] else None
