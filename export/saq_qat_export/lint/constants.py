"""Which values of a graph are known when an engine is built, and what they are."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from saq_qat_export.lint.nodes import dimensions, integer, is_standard, operand

__all__ = ["Array", "Constants", "find_constants"]

Array = npt.NDArray[Any]

_FOLDED_ELEMENTS = 65536
"""Of each operand, and of what is computed of them."""
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Div": np.divide,
    "Exp": np.exp,
    "Identity": np.asarray,
    "Log": np.log,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "Reciprocal": np.reciprocal,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
}


@dataclass(frozen=True)
class Constants:
    """Values that depend on no input of the network.

    known: all of them. folded: numbers of those that simple operators compute from constants.
    """

    known: frozenset[ir.Value]
    folded: dict[ir.Value, Array]

    def __contains__(self, value: ir.Value | None) -> bool:
        return value is not None and (value in self.known or value.const_value is not None)

    def array(self, value: ir.Value | None) -> Array | None:
        """Numbers of a constant; None if it is none, or if its numbers cannot be had."""
        if value is None:
            return None
        tensor = value.const_value
        return self.folded.get(value) if tensor is None else _numbers(tensor)


def find_constants(nodes: Iterable[ir.Node]) -> Constants:
    """Fold constants along ``nodes``, which must be in topological order."""
    constants = Constants(frozenset(), {})
    known: set[ir.Value] = set()
    for node in nodes:
        if not _is_constant(node, known):
            continue
        known.update(node.outputs)
        array = _fold(node, constants)
        if array is not None and node.outputs:
            constants.folded[node.outputs[0]] = array
    return Constants(frozenset(known), constants.folded)


def _is_constant(node: ir.Node, known: set[ir.Value]) -> bool:
    if node.op_type in _RANDOM or any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
        return False
    if is_standard(node, "Shape", "Size"):
        sizes = dimensions(operand(node, 0))
        return sizes is not None and None not in sizes
    return all(value is None or value in known or value.const_value is not None for value in node.inputs)


_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _fold(node: ir.Node, constants: Constants) -> Array | None:
    if is_standard(node, "Constant"):
        return _constant(node)
    inputs = [constants.array(value) for value in node.inputs if value is not None]
    arrays = [array for array in inputs if array is not None and array.size <= _FOLDED_ELEMENTS]
    if not arrays or len(arrays) < len(node.inputs):
        return None
    with np.errstate(all="ignore"):
        try:
            return _compute(node, arrays)
        except (TypeError, ValueError):  # operands that do not fit: the parser will say so
            return None


def _compute(node: ir.Node, arrays: list[Array]) -> Array | None:
    if is_standard(node, "Cast"):
        return arrays[0].astype(ir.DataType(integer(node, "to", 1)).numpy())
    if is_standard(node, "Reshape", "Squeeze", "Unsqueeze", "Flatten"):
        shape = dimensions(node.outputs[0])
        return (
            arrays[0].reshape([-1 if size is None else size for size in shape]) if shape is not None else None
        )
    function = _ELEMENTWISE.get(node.op_type) if is_standard(node, node.op_type) else None
    # Two vectors that are small each can be terabytes together.
    if function is None or prod(np.broadcast_shapes(*(array.shape for array in arrays))) > _FOLDED_ELEMENTS:
        return None
    return np.asarray(function(*arrays))


def _constant(node: ir.Node) -> Array | None:
    for name, attribute in node.attributes.items():
        if name == "value" and attribute.type == ir.AttributeType.TENSOR:
            return _numbers(attribute.as_tensor())
        if name in ("value_float", "value_floats"):
            return np.asarray(attribute.value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(attribute.value, np.int64)
    return None


def _numbers(tensor: ir.TensorProtocol) -> Array | None:
    try:
        return tensor.numpy()
    except (OSError, TypeError, ValueError):  # external data that is not there, or data of another size
        return None
    except AssertionError:  # how onnx_ir says that the numbers stand in the field of another type
        return None
