"""What single operators of a QuantizeLinear/DequantizeLinear graph do to codes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

from saq_qat_export.reference.integer_math import CodeRange, Codes, Float32
from saq_qat_export.reference.qdq_layers import attributes_of
from saq_qat_export.reference.values import Accumulator, Bounded, ChannelCodes, CodeTensor, Opaque, Value

__all__ = [
    "Array",
    "Entry",
    "StoredTensor",
    "call",
    "clip",
    "dequantized",
    "move",
    "storage_type",
]

_BY_KERNEL = frozenset({"ConvTranspose", "GridSample"})

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredTensor:
    """An integer tensor of the file.

    tensor: what it holds less its zero point, with the zero point under which kernels store it. zero_point:
    that of the file. range: codes it can hold.
    """

    tensor: CodeTensor
    zero_point: int
    range: CodeRange


Entry = Value | Opaque | StoredTensor


def storage_type(node: onnx.NodeProto, zero_point: Array | None) -> tuple[int, CodeRange]:
    """Zero point of a QuantizeLinear, and the codes that its integer type holds."""
    if zero_point is None:
        dtype = attributes_of(node).get("output_dtype", 0) or onnx.TensorProto.UINT8
        zero_point = np.zeros((), helper.tensor_dtype_to_np_dtype(dtype))
    limits, offset = np.iinfo(zero_point.dtype), int(zero_point.reshape(-1)[0])
    return offset, CodeRange(int(limits.min) - offset, int(limits.max) - offset)


def dequantized(
    node: onnx.NodeProto, entry: StoredTensor | Array, scale: Float32, offset: Array | None
) -> Value:
    """A DequantizeLinear of codes with one scale, or of constants with one scale per channel."""
    if isinstance(entry, StoredTensor):
        shift = entry.zero_point - (0 if offset is None else int(offset.reshape(-1)[0]))
        codes = entry.tensor.codes + np.int32(shift) if shift else entry.tensor.codes
        return replace(entry.tensor, codes=codes, scale=np.float32(scale.reshape(-1)[0]))
    axis = attributes_of(node).get("axis", 1) % max(entry.ndim, 1)
    codes = entry.astype(np.int32)
    if offset is not None:
        channels = (1,) * axis + (-1,) + (1,) * (entry.ndim - axis - 1)
        codes = codes - offset.astype(np.int32).reshape(channels if offset.ndim else ())
    return ChannelCodes(codes, scale.reshape(-1), axis)


def clip(entry: Value | StoredTensor, low: Array | None, high: Array | None) -> Bounded | StoredTensor:
    """In float, bounds of the next QuantizeLinear; on stored codes, narrower codes."""
    minimum = -np.inf if low is None else float(low.reshape(()))
    maximum = np.inf if high is None else float(high.reshape(()))
    if not isinstance(entry, StoredTensor):
        return Bounded(entry, np.float32(minimum), np.float32(maximum))
    narrow = entry.range.narrow(minimum - entry.zero_point, maximum - entry.zero_point)
    codes = narrow.clip(entry.tensor.codes.astype(np.float32))
    return replace(entry, tensor=replace(entry.tensor, codes=codes), range=narrow)


def move(node: onnx.NodeProto, entry: Entry, change: Callable[[Codes], Codes]) -> Entry | None:
    """An operator that chooses among codes, without computing with them; None if ``entry`` has none."""
    match entry:
        case StoredTensor(tensor):
            return replace(entry, tensor=replace(tensor, codes=change(tensor.codes)))
        case CodeTensor() | Accumulator():
            return entry.moved(change)
        case ChannelCodes(codes, scale, axis) if node.op_type == "Transpose":
            order = attributes_of(node).get("perm", range(codes.ndim)[::-1])
            return ChannelCodes(change(codes), scale, list(order).index(axis))
    return None


def call(node: onnx.NodeProto, inputs: Mapping[str, Array], opsets: Mapping[str, int]) -> list[Any]:
    """One node by ONNX's own evaluator, or by ONNX Runtime's kernel where that one falls short.

    The evaluator's ConvTranspose knows no groups, and its GridSample not the modes of opset 16 (onnx 1.23).
    """
    values = [onnx.ValueInfoProto(name=name) for name in inputs]
    results = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "one_node", values, results)
    if node.op_type in _BY_KERNEL:
        return _by_kernel(graph, inputs, opsets)
    return list(ReferenceEvaluator(graph, opsets=dict(opsets)).run(None, dict(inputs)))


def _by_kernel(graph: onnx.GraphProto, inputs: Mapping[str, Array], opsets: Mapping[str, int]) -> list[Any]:
    for value in graph.input:
        element = helper.np_dtype_to_tensor_dtype(inputs[value.name].dtype)
        value.type.CopyFrom(helper.make_tensor_type_proto(element, inputs[value.name].shape))
    imports = [helper.make_opsetid(domain, number) for domain, number in opsets.items()]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))
