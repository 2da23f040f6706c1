"""Walking a graph from a value to the Q and DQ nodes that matter to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from saq_qat_export.lint.constants import Constants
from saq_qat_export.lint.nodes import consumers, is_standard, moves, operand, result
from saq_qat_export.lint.operators import ACTIVATIONS
from saq_qat_export.lint.quantization import QuantizationNode

__all__ = ["Origin", "downstream", "find_origin", "in_epilogue", "upstream"]

_EPILOGUE = ("Add", "BatchNormalization", "Cast", "Div", "Mul", "Sub")


@dataclass(frozen=True)
class Origin:
    """Where a value comes from, back through operators that only move numbers (and through casts).

    Attributes:
        dequantized: the DequantizeLinear nodes it comes from.
        through: the nodes passed on the way.
        stopped: other values it comes from, constants aside.
    """

    dequantized: tuple[QuantizationNode, ...]
    through: tuple[ir.Node, ...]
    stopped: tuple[ir.Value, ...]

    @property
    def quantized(self) -> bool:
        """Whether the value holds dequantized codes only."""
        return bool(self.dequantized) and not self.stopped


def find_origin(
    value: ir.Value, quantization: dict[ir.Value, QuantizationNode], constants: Constants
) -> Origin:
    """Follow ``value`` back to DequantizeLinear nodes."""
    dequantized: list[QuantizationNode] = []
    through: list[ir.Node] = []
    stopped: list[ir.Value] = []
    waiting, seen = [value], {value}
    while waiting:
        current = waiting.pop(0)
        found, node = quantization.get(current), current.producer()
        if found is not None and not found.quantizes:
            dequantized.append(found)
            continue
        if node is None or not (moves(node) or is_standard(node, "Cast")):
            stopped.append(current)
            continue
        through.append(node)
        sources = [source for source in _carried(node) if source not in seen and source not in constants]
        seen.update(sources)
        waiting.extend(sources)
    return Origin(tuple(dequantized), tuple(through), tuple(stopped))


def _carried(node: ir.Node) -> list[ir.Value]:
    """Inputs whose numbers an operator moves."""
    carried = node.inputs if node.op_type == "Concat" else [operand(node, 0)]
    return [value for value in carried if value is not None]


def downstream(value: ir.Value | None, through: Callable[[ir.Node], bool]) -> Iterator[ir.Node]:
    """Nodes that read ``value``, then those that read the results of nodes that ``through`` allows."""
    waiting, seen = list(consumers(value)), set(consumers(value))
    while waiting:
        node = waiting.pop(0)
        yield node
        following = consumers(result(node)) if through(node) else ()
        waiting.extend(next_node for next_node in following if next_node not in seen)
        seen.update(following)


def upstream(value: ir.Value | None, through: Callable[[ir.Node], bool]) -> Iterator[ir.Node]:
    """The node that writes ``value``, then those that write the inputs of nodes that ``through`` allows."""
    waiting: list[ir.Value] = [value] if value is not None else []
    seen = set(waiting)
    while waiting:
        node = waiting.pop(0).producer()
        if node is None:
            continue
        yield node
        sources = [source for source in node.inputs if source is not None and source not in seen]
        if through(node):
            waiting.extend(sources)
            seen.update(sources)


def in_epilogue(node: ir.Node) -> bool:
    """Whether TensorRT can compute the node in one kernel with the layer before it."""
    return moves(node) or is_standard(node, *_EPILOGUE, *ACTIVATIONS)
