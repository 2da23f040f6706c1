"""What a bundle's graph tells beyond the manifest: what computes in float."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from saq_qat_export.reference.qdq_graph import QdqGraph
from saq_qat_runtime.operators import CROSSED_BY_ONNXRUNTIME, MOVES, PRODUCTS

__all__ = ["GraphFacts", "graph_facts"]

_NO_FLOATS = frozenset({"Cast", "Constant", "DequantizeLinear", "IsNaN", "QuantizeLinear", "Shape"})
# Compute nothing; a MaxPool compares, in float or on codes.
_COPIES = MOVES - {"MaxPool"}
_INTEGER_WITH_CODES_BEHIND = frozenset({"Add", "GlobalAveragePool", "MaxPool"})


@dataclass(frozen=True)
class GraphFacts:
    """Facts of a QDQ graph.

    Attributes:
        float_operations: how often each ONNX operator computes in float32, most frequent first; products and
            convolutions are counted elsewhere, by their kernels.
    """

    float_operations: dict[str, int]


def graph_facts(model: onnx.ModelProto) -> GraphFacts:
    """The facts of one of our graphs for ONNX Runtime; nothing is loaded into an engine."""
    graph = QdqGraph(model.graph)
    shifted = set(_shifted(graph))
    found = Counter(node.op_type for node in _floats(graph) if node.output[0] not in shifted)
    return GraphFacts(dict(found.most_common()))


def _shifted(graph: QdqGraph) -> Iterator[str]:
    """What the subtraction of an offset writes, of one number for a quantizer alone."""
    for node in graph.nodes:
        number = graph.array(node.input[1]) if node.op_type == "Sub" else None
        quantizer = graph.quantizer_behind(node.output[0], frozenset())
        if number is not None and number.shape == () and quantizer is not None:
            yield node.output[0]


def _floats(graph: QdqGraph) -> Iterator[onnx.NodeProto]:
    """Nodes that compute in float and are part of no integer kernel."""
    for node in graph.nodes:
        idle = node.op_type in PRODUCTS | _COPIES | _NO_FLOATS or graph.fixed.issuperset(node.output)
        if not idle and not graph.codes.issuperset(node.output) and not _between_codes(graph, node):
            yield node


def _between_codes(graph: QdqGraph, node: onnx.NodeProto) -> bool:
    """Whether one kernel of ONNX Runtime: a sum, average or maximum that reads and writes only codes.

    Who asks for the shape of its result keeps the engine from fusing it.
    """
    if node.op_type not in _INTEGER_WITH_CODES_BEHIND:
        return False
    reads = all(graph.dequantizer_before(name, CROSSED_BY_ONNXRUNTIME) for name in node.input)
    behind = graph.quantizer_behind(node.output[0], CROSSED_BY_ONNXRUNTIME, shapes=True)
    return reads and behind is not None
