"""The graph for TensorRT in float16 beside the one in float32: the same operations, constants rounded once.

The graph in float32 is proved code by code; float16 rounds codes otherwise, so that comparing codes can only
bound how many differ, and a softmax over another axis may stay within that bound. So the graph itself is
compared: node by node, attributes and all that is no weight. Weights are compared with the checkpoint.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["structural_differences"]

Array = npt.NDArray[Any]
_HALF, _SINGLE = int(TensorProto.FLOAT16), int(TensorProto.FLOAT)


def structural_differences(single: bytes, half: bytes) -> Iterator[str]:
    """Where the operations of a float16 graph are not those of a float32 graph, in words; names do not count.

    Args:
        single, half: serialised models with their weights inside.
    """
    own, other = (onnx.load_from_string(content).graph for content in (single, half))
    nodes, found = (list(graph.node) for graph in (own, other))
    casts = {node.output[0]: node.input[0] for node in found if _is_boundary_cast(other, node)}
    found = [node for node in found if not _is_boundary_cast(other, node)]
    if len(nodes) != len(found):
        yield f"{len(found)} operations, where the float32 graph has {len(nodes)}"
    same = dict(zip((i.name for i in own.input), (i.name for i in other.input), strict=False))
    pair = _Pair(_constants(own), _constants(other), same, casts)
    for node, counterpart in zip(nodes, found, strict=False):
        yield from pair.differences(node, counterpart)
    for result, counterpart_result in zip(own.output, other.output, strict=False):
        if same.get(result.name) != casts.get(counterpart_result.name, counterpart_result.name):
            yield f"output {counterpart_result.name} is another value"


def _constants(graph: onnx.GraphProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _is_boundary_cast(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Images come and logits go in float32."""
    if node.op_type != "Cast":
        return False
    inputs, outputs = {i.name for i in graph.input}, {o.name for o in graph.output}
    to = _attributes(node).get("to")
    return (node.input[0] in inputs and to == _HALF) or (node.output[0] in outputs and to == _SINGLE)


class _Pair:
    """Two graphs read side by side; ``same`` maps the values of the first to those of the second."""

    def __init__(
        self, own: dict[str, Array], other: dict[str, Array], same: dict[str, str], casts: dict[str, str]
    ) -> None:
        self.own, self.other, self.same, self.casts = own, other, same, casts

    def differences(self, node: onnx.NodeProto, found: onnx.NodeProto) -> Iterator[str]:
        where = f"{found.op_type} {found.output[0]}"
        self.same.update(zip(node.output, found.output, strict=False))
        if node.op_type != found.op_type:
            yield f"{where} stands where the float32 graph has {node.op_type} {node.output[0]}"
        elif not _same_attributes(_attributes(node), _attributes(found)):
            yield f"attributes of {where}"
        elif len(node.input) != len(found.input):
            yield f"number of inputs of {where}"
        else:
            for index, (name, other) in enumerate(zip(node.input, found.input, strict=True)):
                if not self._same_input(node, index, name, self.casts.get(other, other)):
                    yield f"input {index} of {where}"

    def _same_input(self, node: onnx.NodeProto, index: int, name: str, other: str) -> bool:
        if name not in self.own or other not in self.other:
            return self.same.get(name, name) == other and (name in self.own) == (other in self.other)
        own, found = self.own[name], self.other[other]
        if node.op_type == "DequantizeLinear" and index < 2:
            return own.shape == found.shape  # codes and their scales may share a power of two otherwise
        if own.dtype == np.float32:
            halves = own.astype(np.float16)
            return found.shape == own.shape and bool((found.astype(np.float16) == halves).all())
        return own.dtype == found.dtype and np.array_equal(own, found)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _same_attributes(own: dict[str, Any], found: dict[str, Any]) -> bool:
    return own.keys() == found.keys() and all(_same(name, own[name], found[name]) for name in own)


def _same(name: str, own: Any, found: Any) -> bool:
    if isinstance(own, onnx.TensorProto):
        values, other = numpy_helper.to_array(own), numpy_helper.to_array(found)
        rounded = values.astype(np.float16) if values.dtype == np.float32 else values
        return values.shape == other.shape and np.array_equal(rounded, other.astype(rounded.dtype))
    if name == "to" and own == _SINGLE:
        return bool(found == _HALF)
    return bool(own == found)
