"""Which numbers the tensors of an ONNX file can hold: intervals, carried from quantizers to their readers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from saq_qat_export.reference.qdq_layers import attributes_of
from saq_qat_export.reference.qdq_operators import call

__all__ = ["Interval", "OnnxTensors", "nodes_of"]

Array = npt.NDArray[Any]

# Their results hold only numbers of the first input, or numbers between two of them.
_KEEPING = frozenset(
    {
        "AveragePool", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalAveragePool",
        "GlobalMaxPool", "Identity", "MaxPool", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze",
        "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip  # one value a line is a page
_UNIT = frozenset({"HardSigmoid", "Sigmoid", "Softmax"})
_NO_CONSTANT = frozenset({"Bernoulli", "If", "Loop", "RandomNormal", "RandomUniform", "Scan"})
_QUANTIZED_TYPES = frozenset({TensorProto.UINT8, TensorProto.INT8})


@dataclass(frozen=True)
class Interval:
    """Smallest and largest number a tensor can hold."""

    low: float
    high: float

    def within(self, low: float, high: float) -> "Interval":
        """Clipped."""
        return Interval(min(max(self.low, low), high), min(max(self.high, low), high))


ANYTHING = Interval(-math.inf, math.inf)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph and of the graphs inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from nodes_of(inner)


class OnnxTensors:
    """Constants, types and intervals of the tensors of one model, each found when asked for.

    Args:
        model: without local functions; weights may lie in other files that were read.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(nodes_of(model.graph))
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}
        self._initializers = dict(_initializers(model.graph))
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
        }
        self._constants: dict[str, Array | None] = {}
        self._intervals: dict[str, Interval] = {}

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """Nodes by the name of what they read."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def constant(self, name: str) -> Array | None:
        """The numbers of a tensor that depends on no input; None for anything else."""
        if name not in self._constants:
            self._constants[name] = self._evaluated(name)
        return self._constants[name]

    def _evaluated(self, name: str) -> Array | None:
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        node = self.producers.get(name)
        if node is None or node.op_type in _NO_CONSTANT or any(a.HasField("g") for a in node.attribute):
            return None
        inputs = {source: self.constant(source) for source in node.input if source}
        known = {source: array for source, array in inputs.items() if array is not None}
        if len(known) < len(inputs):
            return None
        results = dict(zip(node.output, call(node, known, self._opsets), strict=False))
        return np.asarray(results[name])

    def stored_type(self, name: str) -> int:
        """ONNX's number of the element type: UINT8 or INT8 for codes; 0 where it is not known."""
        if name in self._initializers:
            return int(self._initializers[name].data_type)
        node = self.producers.get(name)
        if node is None:
            return int(self._types.get(name, 0))
        if node.op_type == "QuantizeLinear":
            own = attributes_of(node).get("output_dtype", 0)
            return int(own or (self.stored_type(node.input[2]) if _has(node, 2) else TensorProto.UINT8))
        if node.op_type == "DynamicQuantizeLinear":
            return int(TensorProto.UINT8)
        constant = self.constant(name)
        if constant is not None:
            return int(helper.np_dtype_to_tensor_dtype(constant.dtype))
        if node.op_type in _KEEPING or node.op_type in ("Abs", "Clip", "Concat", "Max", "Min", "Pad", "Relu"):
            return self.stored_type(node.input[0])
        return int(self._types.get(name, 0))

    def interval(self, name: str) -> Interval:
        """Bounds of a tensor's numbers; as stored where it holds codes, infinite where nothing is known."""
        if name not in self._intervals:
            self._intervals[name] = self._bounds(name)
        return self._intervals[name]

    def _bounds(self, name: str) -> Interval:
        constant = self.constant(name)
        if constant is not None and constant.size:
            wide = constant.astype(np.float64)
            return Interval(float(wide.min()), float(wide.max()))
        limits = ANYTHING
        if self.stored_type(name) in _QUANTIZED_TYPES:
            info = np.iinfo(helper.tensor_dtype_to_np_dtype(self.stored_type(name)))
            limits = Interval(float(info.min), float(info.max))
        node = self.producers.get(name)
        return limits if node is None else self._result(node).within(limits.low, limits.high)

    def _result(self, node: onnx.NodeProto) -> Interval:
        kind = node.op_type
        if kind in _UNIT:
            return Interval(0.0, 1.0)
        if kind in _KEEPING:
            return self.interval(node.input[0])
        if kind == "Relu":
            return self.interval(node.input[0]).within(0.0, math.inf)
        if kind == "Abs":
            low, high = self.interval(node.input[0]).low, self.interval(node.input[0]).high
            return Interval(max(low, -high, 0.0), max(-low, high))
        if kind == "Clip":
            return self.interval(node.input[0]).within(*self._clip_bounds(node))
        if kind in ("Concat", "Max", "Min", "Pad"):
            return self._joined(node)
        if kind in ("QuantizeLinear", "DequantizeLinear"):
            return self._scaled(node)
        return ANYTHING

    def _clip_bounds(self, node: onnx.NodeProto) -> tuple[float, float]:
        """Inputs of the operator, or attributes before operator set 11; infinite where computed."""
        attributes, bounds = attributes_of(node), []
        for index, key, missing in ((1, "min", -math.inf), (2, "max", math.inf)):
            array = self.constant(node.input[index]) if _has(node, index) else None
            bounds.append(float(attributes.get(key, missing) if array is None else array.reshape(-1)[0]))
        return bounds[0], bounds[1]

    def _joined(self, node: onnx.NodeProto) -> Interval:
        """Numbers of any input; the pad's are zeros unless it says otherwise."""
        names = [node.input[0]] if node.op_type == "Pad" else [name for name in node.input if name]
        parts = [self.interval(name) for name in names]
        if node.op_type == "Pad":
            value = self.constant(node.input[2]) if _has(node, 2) else np.zeros(1)
            if value is None:
                return ANYTHING
            parts.append(Interval(float(value.reshape(-1)[0]), float(value.reshape(-1)[0])))
        return Interval(min(part.low for part in parts), max(part.high for part in parts))

    def _scaled(self, node: onnx.NodeProto) -> Interval:
        """Between floats and codes, if by one scale and zero point that are known."""
        scale = self.constant(node.input[1])
        zero = self.constant(node.input[2]) if _has(node, 2) else np.zeros(1)
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return ANYTHING
        unit, shift = float(scale.reshape(-1)[0]), float(zero.reshape(-1)[0])
        bounds = self.interval(node.input[0])
        if node.op_type == "DequantizeLinear":
            ends = ((bounds.low - shift) * unit, (bounds.high - shift) * unit)
        else:
            ends = (_rounded(bounds.low / unit) + shift, _rounded(bounds.high / unit) + shift)
        return Interval(min(ends), max(ends))


def _rounded(number: float) -> float:
    return float(np.rint(number))


def _has(node: onnx.NodeProto, index: int) -> bool:
    return len(node.input) > index and bool(node.input[index])


def _initializers(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """By name, those of inner graphs and of Constant nodes included."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], cast(onnx.TensorProto, attribute.t)
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _initializers(inner)
