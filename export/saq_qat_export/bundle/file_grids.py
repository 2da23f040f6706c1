"""The grids a written ONNX file states: scale, zero point and bounds of tensors of codes, scales of weights.

Read from the file alone, node by node; what wrote it is not asked.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from saq_qat_export.reference.qdq_graph import CodeNode, QdqGraph
from saq_qat_runtime.operators import RESHAPES

__all__ = ["FileGrids", "TensorGrid", "file_grids"]

Array = npt.NDArray[Any]
_WEIGHTED = ("Conv", "Gemm", "MatMul")
# how far a bound may be from a code's value, of which it is rounded
_OF_SINGLE, _OF_HALF = 2.0**-20, 2.0**-9
_CARRIERS = RESHAPES


@dataclass(frozen=True)
class TensorGrid:
    """One tensor of codes, as stored.

    Attributes:
        dtype: numpy name of the stored type.
        minimum, maximum: of the stored codes, zero point included; None where the file states no bound
            narrower than its type, and what it rounds may be bounded by what computes it.
        pooled: the tensor of codes that these are the maxima of; None where they are something else.
        offset: the number that is subtracted right before the codes are made; None where nothing is.
    """

    scale: float
    zero_point: int
    dtype: str
    minimum: int | None
    maximum: int | None
    pooled: str | None = None
    offset: float | None = None


@dataclass(frozen=True)
class FileGrids:
    """By name: tensors of codes, scales of weights (float arrays (out,)), and the interface.

    Attributes:
        weight_scales: one for each layer that reads the codes; layers with equal codes may share them.
        inputs, outputs: name to shape, where a size that is not a number stands as 0.
    """

    tensors: dict[str, TensorGrid]
    weight_scales: dict[str, list[Array]]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]


def file_grids(content: bytes, *, uint8_in_float: bool = False) -> FileGrids:
    """Read a QDQ file with its weights inside.

    Args:
        uint8_in_float: a Clip in float before codes of uint8 bounds them too, as in files for OpenVINO;
            elsewhere it is the network's own, and only one on the codes counts.
    """
    model = onnx.load_from_string(content)
    graph = QdqGraph(model.graph)
    return FileGrids(
        _tensors(graph, uint8_in_float),
        _weight_scales(graph),
        {entry.name: _shape(entry) for entry in model.graph.input},
        {entry.name: _shape(entry) for entry in model.graph.output},
    )


def _shape(entry: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(int(dimension.dim_value) for dimension in entry.type.tensor_type.shape.dim)


def _tensors(graph: QdqGraph, uint8_in_float: bool) -> dict[str, TensorGrid]:
    """In file order; maxima of codes have the bounds of those codes."""
    found: dict[str, TensorGrid] = {}
    for quantize in graph.quantizers.values():
        if _is_stored_again(graph, quantize):
            continue
        name, grid = _tensor(graph, quantize, uint8_in_float)
        before = found.get(grid.pooled or "")
        if before is not None:
            grid = replace(grid, minimum=before.minimum, maximum=before.maximum)
        found[name] = grid
    return found


def _is_stored_again(graph: QdqGraph, quantize: CodeNode) -> bool:
    """Whether the codes are only read to be stored as another type, on the same grid."""
    readers = [graph.dequantizers.get(node.output[0]) for node in _readers(graph, quantize.result)]
    if None in readers:
        return False
    values = [reader.result for reader in readers if reader is not None]
    behind = [graph.quantizers.get(node.output[0]) for name in values for node in _readers(graph, name)]
    return bool(behind) and all(
        node is not None and _number(node.scale) == _number(quantize.scale) for node in (*readers, *behind)
    )


def _readers(graph: QdqGraph, name: str) -> list[onnx.NodeProto]:
    """Through what only reshapes and moves."""
    found = []
    for node in graph.readers(name):
        found += _readers(graph, node.output[0]) if node.op_type in _CARRIERS else [node]
    return found


def _number(array: Array | None) -> float:
    return float("nan") if array is None else float(array.reshape(()))


def _tensor(graph: QdqGraph, quantize: CodeNode, uint8_in_float: bool) -> tuple[str, TensorGrid]:
    """The name of the codes, which a Clip on integers may write, and their grid."""
    name, scale = quantize.result, _number(quantize.scale)
    zero = np.zeros((), np.uint8) if quantize.zero_point is None else quantize.zero_point
    minimum, maximum = None, None
    if uint8_in_float or zero.dtype != np.uint8:
        minimum, maximum = _bounds_before(graph, quantize.source, scale, zero)
    readers = graph.readers(name)
    if len(readers) == 1 and readers[0].op_type == "Clip":
        name = readers[0].output[0]
        minimum, maximum = (int(_number(graph.array(bound))) for bound in readers[0].input[1:3])
    elif minimum is None and zero.dtype == np.uint8:
        minimum, maximum = 0, 255
    pooled = None if name != quantize.result else _pooled(graph, quantize)
    zero_point, offset = int(zero.reshape(())), _offset(graph, quantize.source)
    return name, TensorGrid(scale, zero_point, str(zero.dtype), minimum, maximum, pooled, offset)


def _offset(graph: QdqGraph, source: str) -> float | None:
    before = graph.producers.get(source)
    if before is not None and before.op_type == "Clip":  # codes are bounded in float, behind the offset
        before = graph.producers.get(before.input[0])
    number = None if before is None or before.op_type != "Sub" else graph.array(before.input[1])
    return None if number is None or number.size != 1 else _number(number)


def _pooled(graph: QdqGraph, quantize: CodeNode) -> str | None:
    """The codes whose maxima ``quantize`` writes on their own grid."""
    pool = graph.producers.get(quantize.source)
    if pool is None or pool.op_type != "MaxPool":
        return None
    before = graph.dequantizer_before(pool.input[0], _CARRIERS)
    return None if before is None or _number(before.scale) != _number(quantize.scale) else before.source


def _bounds_before(graph: QdqGraph, source: str, scale: float, zero: Array) -> tuple[int | None, int | None]:
    """Of a Clip in float, as stored codes: TensorRT and OpenVINO bound codes before they are made."""
    clip = graph.producers.get(source)
    if clip is not None and clip.op_type == "Abs":  # of what a Clip at zero writes
        clip = graph.producers.get(clip.input[0])
    if clip is None or clip.op_type != "Clip" or len(clip.input) < 3:
        return None, None
    bounds = [graph.array(name) for name in clip.input[1:3]]
    if any(bound is None for bound in bounds):
        return None, None
    low, high = (_number(bound) / scale for bound in bounds)
    rounding = _OF_HALF if any(b is not None and b.dtype == np.float16 for b in bounds) else _OF_SINGLE
    if any(abs(code - round(code)) > rounding * max(1, abs(code)) for code in (low, high)):
        return None, None  # the network's own, which knows no codes
    limits, shift = np.iinfo(zero.dtype), int(zero.reshape(()))
    return max(round(low) + shift, int(limits.min)), min(round(high) + shift, int(limits.max))


def _weight_scales(graph: QdqGraph) -> dict[str, list[Array]]:
    """Scales of the weights of layers that read codes, by name of the weight."""
    found: dict[str, list[Array]] = {}
    for node in graph.nodes:
        if node.op_type in _WEIGHTED:
            weight = graph.dequantizer_before(node.input[1], _CARRIERS)
            if weight is not None and weight.scale is not None and weight.scale.ndim == 1:
                found.setdefault(weight.source, []).append(weight.scale)
    return found
