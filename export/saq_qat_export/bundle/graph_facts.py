"""What a bundle's graph tells beyond the manifest: offsets of codes, and what computes in float."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

__all__ = ["GraphFacts", "read_graph"]

_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_MOVES = frozenset(
    {"Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
_NO_FLOATS = frozenset({"Cast", "Constant", "DequantizeLinear", "IsNaN", "QuantizeLinear", "Shape"})
_ON_CODES = frozenset({"Clip", "MaxPool"})
_INTEGER_WITH_CODES_BEHIND = frozenset({"Add", "GlobalAveragePool", "MaxPool"})


@dataclass(frozen=True)
class GraphFacts:
    """Facts of a QDQ graph.

    Attributes:
        float_operations: how often each ONNX operator computes in float32, most frequent first; products and
            convolutions are counted elsewhere, by their kernels.
        offsets: of each quantized tensor that has one, what its values are before scale and codes are added.
    """

    float_operations: dict[str, int]
    offsets: dict[str, float]


def read_graph(model: onnx.ModelProto) -> GraphFacts:
    """The facts of one of our graphs for ONNX Runtime; nothing is loaded into an engine."""
    graph = _Graph(model.graph)
    offsets = dict(graph.offsets())
    found = Counter(node.op_type for node in graph.floats() if node.output[0] not in graph.shifted)
    return GraphFacts(dict(found.most_common()), offsets)


class _Graph:
    """Nodes by what they write, tensors by who reads them, and what is constant or a code."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.writers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        self.fixed, self.codes = set(self.constants), set[str]()
        self.nodes = list(graph.node)
        self.shifted = set[str]()
        for node in self.nodes:
            self._take_in(node)

    def _take_in(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            self.readers.setdefault(name, []).append(node)
        if node.input and self.fixed.issuperset(filter(None, node.input)):
            self.fixed.update(node.output)
        carries = node.op_type in _MOVES | _ON_CODES and node.input[0] in self.codes
        if node.op_type == "QuantizeLinear" or carries:
            self.codes.update(node.output)

    def offsets(self) -> Iterator[tuple[str, float]]:
        """Name and offset of every quantizer behind a subtraction of one number."""
        for node in self.nodes:
            constant = self.constants.get(node.input[1]) if node.op_type == "Sub" else None
            readers = self.readers.get(node.output[0], [])
            if constant is None or constant.dims or [r.op_type for r in readers] != ["QuantizeLinear"]:
                continue
            self.shifted.add(node.output[0])
            yield readers[0].output[0].rsplit(".", 1)[0], float(numpy_helper.to_array(constant))

    def floats(self) -> Iterator[onnx.NodeProto]:
        """Nodes that compute in float and are part of no integer kernel."""
        for node in self.nodes:
            idle = node.op_type in _PRODUCTS | _MOVES | _NO_FLOATS or self.fixed.issuperset(node.output)
            if not idle and not self.codes.issuperset(node.output) and not self._between_codes(node):
                yield node

    def _between_codes(self, node: onnx.NodeProto) -> bool:
        """Whether one integer kernel: a sum, average or maximum that reads and writes codes alone."""
        if node.op_type not in _INTEGER_WITH_CODES_BEHIND:
            return False
        sources = [self._source(name) for name in node.input]
        return all(source == "DequantizeLinear" for source in sources) and self._written_as_codes(node.output)

    def _source(self, name: str) -> str:
        node = self.writers.get(name)
        while node is not None and node.op_type in _MOVES:
            node = self.writers.get(node.input[0])
        return "" if node is None else node.op_type

    def _written_as_codes(self, names: Iterable[str]) -> bool:
        readers = [reader for name in names for reader in self.readers.get(name, [])]
        if len(readers) == 1 and readers[0].op_type in _MOVES:
            return self._written_as_codes(readers[0].output)
        return len(readers) == 1 and readers[0].op_type == "QuantizeLinear"
