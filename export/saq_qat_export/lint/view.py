"""A graph as the rules see it: nodes in order, constants, Q/DQ nodes, weighted nodes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from saq_qat_export.lint.constants import Array, Constants, find_constants
from saq_qat_export.lint.nodes import consumers, is_standard, node_label
from saq_qat_export.lint.operators import CODE_MOVERS, STANDARD_DOMAINS
from saq_qat_export.lint.quantization import QuantizationNode, find_quantization
from saq_qat_export.lint.trace import Origin, downstream, find_origin
from saq_qat_export.lint.weighted import WeightedNode, find_weighted

__all__ = ["GraphView", "Level", "Violation", "graph_view", "keeps_scale"]

Level = Literal["error", "warning", "note"]

_OLDEST = 1


@dataclass(frozen=True)
class Violation:
    """What a rule found. ``at``: a node, or the name of a tensor; ``level``: if not the rule's own."""

    at: ir.Node | str
    message: str
    fix: str
    level: Level | None = None

    @property
    def where(self) -> str:
        return self.at if isinstance(self.at, str) else node_label(self.at)


@dataclass(frozen=True)
class GraphView:
    """One model with its subgraphs.

    Attributes:
        opset: version of the standard domain.
        order: every node and its place in graph order; nodes of subgraphs follow the node that holds them.
        quantization: Q and DQ nodes by what they write.
    """

    model: ir.Model
    opset: int
    order: dict[ir.Node, int]
    constants: Constants
    quantization: dict[ir.Value, QuantizationNode]
    weighted: tuple[WeightedNode, ...]

    @property
    def graph(self) -> ir.Graph:
        return self.model.graph

    @property
    def inputs(self) -> tuple[ir.Value, ...]:
        """Inputs that the engine will have: constants that stand among the graph's inputs are none."""
        return tuple(value for value in self.graph.inputs if value not in self.constants)

    @property
    def quantizers(self) -> Iterator[QuantizationNode]:
        """QuantizeLinear nodes in graph order."""
        return (found for found in self.quantization.values() if found.quantizes)

    def nodes(self, *operators: str) -> Iterator[ir.Node]:
        """Nodes of the standard domain with one of these operators, in graph order."""
        return (node for node in self.order if is_standard(node, *operators))

    def written_by(self, node: ir.Node) -> QuantizationNode | None:
        """The node as Q or DQ; None if it is neither."""
        return self.quantization.get(node.outputs[0]) if node.outputs else None

    def origin(self, value: ir.Value) -> Origin:
        """The DQ nodes that a value comes from."""
        return find_origin(value, self.quantization, self.constants)

    def array(self, value: ir.Value | None) -> Array | None:
        """Numbers of a constant; None if it is none or they are not at hand."""
        return self.constants.array(value)

    def agree(self, first: ir.Value | None, second: ir.Value | None) -> bool | None:
        """Whether two constants hold the same numbers, to the last bit; None if that is not known.

        They may be of different types, as where a float32 image meets a float16 graph.
        """
        if first is second:
            return True
        left, right = self.array(first), self.array(second)
        if left is None or right is None:
            return None
        if left.dtype != right.dtype:
            left, right = left.astype(np.float64), right.astype(np.float64)
        return left.size == right.size and left.tobytes() == right.tobytes()

    def is_activation(self, found: QuantizationNode) -> bool:
        """Whether a Q or DQ node works on data rather than on constants."""
        return found.data not in self.constants

    def quantizers_of(self, value: ir.Value | None) -> tuple[QuantizationNode, ...]:
        """QuantizeLinear nodes that read ``value`` directly."""
        read = (self.written_by(node) for node in consumers(value))
        return tuple(found for found in read if found is not None and found.quantizes and found.data is value)

    def dequantizers_of(self, value: ir.Value | None) -> tuple[QuantizationNode, ...]:
        """DequantizeLinear nodes that read the codes directly or after operators that keep the scale."""
        read = (self.written_by(node) for node in downstream(value, keeps_scale))
        return tuple(found for found in read if found is not None and not found.quantizes)

    def source_of(self, found: QuantizationNode) -> QuantizationNode | None:
        """The QuantizeLinear that wrote the codes a DequantizeLinear reads, if they come from one."""
        value = found.data
        for _ in range(len(self.order)):
            source, node = self.quantization.get(value), value.producer()
            if source is not None or node is None or not keeps_scale(node) or not node.inputs:
                return source if source is not None and source.quantizes else None
            value = node.inputs[0] or value
        return None


def keeps_scale(node: ir.Node) -> bool:
    """Whether codes leave the node at the scale they came with."""
    return is_standard(node, *CODE_MOVERS)


def graph_view(model: ir.Model) -> GraphView:
    """Read a model whose local functions are inlined and whose shapes are inferred as far as possible."""
    versions = [version for domain, version in model.opset_imports.items() if domain in STANDARD_DOMAINS]
    opset = max(versions, default=_OLDEST)
    nodes = tuple(model.graph.all_nodes())
    constants = find_constants(nodes)
    quantization = find_quantization(nodes, opset)
    weighted = find_weighted(nodes, quantization, constants)
    order = {node: place for place, node in enumerate(nodes)}
    return GraphView(model, opset, order, constants, quantization, weighted)
