"""A written ONNX file as its nodes and constants, with a book of which constant was accounted for where."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from saq_qat.errors import ArtifactError

__all__ = ["CARRIERS", "GraphFile", "attribute"]

Array = npt.NDArray[Any]

CARRIERS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that move elements and change none."""

_ARITHMETIC: dict[str, Callable[..., Any]] = {"Add": np.add, "Mul": np.multiply, "Sub": np.subtract}
_FOLDED = frozenset({"Cast", "Identity", *_ARITHMETIC})


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, or ``default``."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


class GraphFile:
    """Nodes in file order, constants by name, who writes and who reads a value.

    Attributes:
        nodes: those that compute with data.
        constants: initializers, Constant nodes, and what integer arithmetic makes of these: packed weights.
        half: whether floats are float16.
        open: constant inputs nobody has accounted for yet: (node, index of the input).
    """

    def __init__(self, content: bytes) -> None:
        """Raises ArtifactError if the content is no ONNX model of one graph with its weights inside."""
        self.graph = _parsed(content)
        self.constants: dict[str, Array] = {}
        self.roots: dict[str, set[str]] = {}
        for tensor in self.graph.initializer:
            self._hold(tensor.name, _array(tensor), {tensor.name})
        self.nodes: list[onnx.NodeProto] = []
        for node in self.graph.node:
            if not self._fold(node):
                self.nodes.append(node)
        self.writers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        self.open: dict[tuple[int, int], tuple[onnx.NodeProto, int]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((node, index))
                if name in self.constants:
                    self.open[id(node), index] = (node, index)
        self.half = any(array.dtype == np.float16 for array in self.constants.values())

    def _hold(self, name: str, array: Array, roots: set[str]) -> None:
        self.constants[name], self.roots[name] = array, roots

    def _fold(self, node: onnx.NodeProto) -> bool:
        """Take in a Constant, and integer arithmetic on constants."""
        if node.op_type == "Constant":
            self._hold(node.output[0], _constant(node), set())
            return True
        if node.op_type not in _FOLDED or any(name not in self.constants for name in node.input):
            return False
        arrays = [self.constants[name] for name in node.input]
        if not arrays or any(array.dtype.kind == "f" for array in arrays) or _becomes_float(node):
            return False
        self._hold(node.output[0], _folded(node, arrays), set().union(*(self.roots[n] for n in node.input)))
        return True

    def value(self, node: onnx.NodeProto, index: int) -> Array | None:
        """A constant input of a node, accounted for from now on; None if it is computed or absent."""
        if index >= len(node.input) or node.input[index] not in self.constants:
            return None
        self.open.pop((id(node), index), None)
        return self.constants[node.input[index]]

    def name(self, node: onnx.NodeProto, index: int) -> str:
        return node.input[index] if index < len(node.input) else ""

    def writer(self, node: onnx.NodeProto, index: int = 0) -> onnx.NodeProto | None:
        """The node that computes an input of ``node``."""
        return self.writers.get(self.name(node, index))

    def source(self, node: onnx.NodeProto, index: int = 0) -> onnx.NodeProto | None:
        """The same, with carriers walked through."""
        found = self.writer(node, index)
        while found is not None and found.op_type in CARRIERS:
            found = self.writer(found)
        return found

    def bound_before(self, quantize: onnx.NodeProto) -> onnx.NodeProto | None:
        """What writes the floats of a QuantizeLinear, or the Clip at zero whose absolute values it reads."""
        found = self.writer(quantize)
        clip = None if found is None or found.op_type != "Abs" else self.writer(found)
        low = None if clip is None or clip.op_type != "Clip" else self.constants.get(self.name(clip, 1))
        return found if low is None or bool(np.any(low < 0)) else clip

    def quantizer_before(self, dequantize: onnx.NodeProto) -> onnx.NodeProto | None:
        """The QuantizeLinear whose codes a DequantizeLinear reads, bounded or not."""
        node = self.source(dequantize)
        if node is not None and node.op_type == "Clip":
            node = self.source(node)
        return node if node is not None and node.op_type == "QuantizeLinear" else None

    def as_stored(self, value: Any) -> Array:
        """A float32 as the file has it: rounded to float16 where floats are that."""
        single = np.asarray(value, np.float32)
        return single.astype(np.float16).astype(np.float32) if self.half else single

    def uses(self, name: str) -> Iterator[tuple[onnx.NodeProto, int]]:
        """Who reads a value, through carriers, and as which input."""
        for node, index in self.readers.get(name, []):
            if node.op_type in CARRIERS and index == 0:
                yield from self.uses(node.output[0])
            else:
                yield node, index

    def unused(self) -> list[str]:
        """Initializers that no node reads."""
        read: set[str] = {output.name for output in self.graph.output}
        for node in self.nodes:
            for name in node.input:
                read |= self.roots.get(name, set())
        return [tensor.name for tensor in self.graph.initializer if tensor.name not in read]


def _parsed(content: bytes) -> onnx.GraphProto:
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # google.protobuf's DecodeError, which has no public name
        raise ArtifactError(f"This is no ONNX model: {error}.") from error
    graph: onnx.GraphProto = model.graph
    if not graph.node:
        raise ArtifactError("This is no ONNX model: it has no node.")
    if model.functions or graph.sparse_initializer:
        raise ArtifactError("The ONNX file has functions or sparse weights, which no export of ours writes.")
    for node in graph.node:
        if any(
            entry.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for entry in node.attribute
        ):
            raise ArtifactError(f"The ONNX file has a node with a graph inside: {node.op_type} {node.name}.")
    return graph


def _array(tensor: onnx.TensorProto) -> Array:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ArtifactError(f"{tensor.name}: its numbers are in another file; ours are inside the model.")
    array: Array = numpy_helper.to_array(tensor)
    four_bits = tensor.data_type in (onnx.TensorProto.UINT4, onnx.TensorProto.INT4)
    return array.astype(np.int64) if four_bits else array


def _constant(node: onnx.NodeProto) -> Array:
    (entry,) = node.attribute
    value = helper.get_attribute_value(entry)
    if isinstance(value, onnx.TensorProto):
        return _array(value)
    return np.asarray(value, np.float32 if entry.name.startswith("value_float") else None)


def _becomes_float(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and helper.tensor_dtype_to_np_dtype(attribute(node, "to")).kind not in "iu"


def _folded(node: onnx.NodeProto, arrays: list[Array]) -> Array:
    if node.op_type in _ARITHMETIC:
        result: Array = _ARITHMETIC[node.op_type](*arrays)
        return result
    if node.op_type == "Cast":
        return arrays[0].astype(helper.tensor_dtype_to_np_dtype(attribute(node, "to")))
    return arrays[0]
