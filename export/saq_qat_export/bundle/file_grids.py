"""The grids a written ONNX file states: scale, zero point and bounds of tensors of codes, scales of weights.

Read from the file alone, node by node; what wrote it is not asked.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

__all__ = ["FileGrids", "TensorGrid", "file_grids"]

Array = npt.NDArray[Any]
_WEIGHTED = ("Conv", "Gemm", "MatMul")
# how far a bound may be from a code's value, of which it is rounded
_OF_SINGLE, _OF_HALF = 2.0**-20, 2.0**-9
_CARRIERS = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")


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


def file_grids(content: bytes) -> FileGrids:
    """Read a QDQ file with its weights inside."""
    model = onnx.load_from_string(content)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    writers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    reader = _Reader(constants, writers, readers)
    return FileGrids(
        reader.tensors(model),
        reader.weight_scales(model),
        {entry.name: _shape(entry) for entry in model.graph.input},
        {entry.name: _shape(entry) for entry in model.graph.output},
    )


def _shape(entry: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(int(dimension.dim_value) for dimension in entry.type.tensor_type.shape.dim)


@dataclass(frozen=True)
class _Reader:
    constants: dict[str, Array]
    writers: dict[str, onnx.NodeProto]
    readers: dict[str, list[onnx.NodeProto]]

    def tensors(self, model: onnx.ModelProto) -> dict[str, TensorGrid]:
        """In file order; maxima of codes have the bounds of those codes."""
        found: dict[str, TensorGrid] = {}
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear" and not self._is_stored_again(node):
                name, grid = self._tensor(node)
                before = found.get(grid.pooled or "")
                if before is not None:
                    grid = replace(grid, minimum=before.minimum, maximum=before.maximum)
                found[name] = grid
        return found

    def _is_stored_again(self, quantize: onnx.NodeProto) -> bool:
        """Whether the codes are only read to be stored as another type, on the same grid."""
        readers = self._readers_of(quantize.output[0])
        behind = [reader for node in readers for reader in self._readers_of(node.output[0])]
        return (
            bool(behind)
            and all(node.op_type == "DequantizeLinear" for node in readers)
            and all(node.op_type == "QuantizeLinear" for node in behind)
            and all(self._scale(node) == self._scale(quantize) for node in (*readers, *behind))
        )

    def _readers_of(self, name: str) -> list[onnx.NodeProto]:
        """Through what only moves elements."""
        found = []
        for node in self.readers.get(name, []):
            found += self._readers_of(node.output[0]) if node.op_type in _CARRIERS else [node]
        return found

    def _scale(self, node: onnx.NodeProto) -> float:
        return float(self.constants[node.input[1]].reshape(()))

    def _tensor(self, quantize: onnx.NodeProto) -> tuple[str, TensorGrid]:
        """The name of the codes, which a Clip on integers may write, and their grid."""
        name = quantize.output[0]
        zero = self.constants[quantize.input[2]]
        scale = self._scale(quantize)
        minimum, maximum = self._bounds_before(quantize, scale)
        clips = [node for node in self.readers.get(name, ()) if node.op_type == "Clip"]
        if len(clips) == 1 and len(self.readers[name]) == 1:
            name = clips[0].output[0]
            low, high = (self.constants[bound] for bound in clips[0].input[1:3])
            minimum, maximum = int(low.reshape(())), int(high.reshape(()))
        elif zero.dtype == np.uint8:
            minimum, maximum = 0, 255
        pooled = None if name != quantize.output[0] else self._pooled(quantize)
        zero_point, offset = int(zero.reshape(())), self._offset(quantize)
        return name, TensorGrid(scale, zero_point, str(zero.dtype), minimum, maximum, pooled, offset)

    def _offset(self, quantize: onnx.NodeProto) -> float | None:
        before = self.writers.get(quantize.input[0])
        number = None if before is None or before.op_type != "Sub" else self.constants.get(before.input[1])
        return None if number is None or number.size != 1 else float(number.reshape(()))

    def _pooled(self, quantize: onnx.NodeProto) -> str | None:
        """The codes whose maxima ``quantize`` writes on their own grid."""
        node = self.writers.get(quantize.input[0])
        if node is None or node.op_type != "MaxPool":
            return None
        node = self.writers.get(node.input[0])
        while node is not None and node.op_type in _CARRIERS:
            node = self.writers.get(node.input[0])
        if node is None or node.op_type != "DequantizeLinear":
            return None
        same = (self.constants[node.input[1]] == self.constants[quantize.input[1]]).all()
        return node.input[0] if bool(same) else None

    def _bounds_before(self, quantize: onnx.NodeProto, scale: float) -> tuple[int | None, int | None]:
        """Of a Clip in float, as codes: where zero points are 0, codes are bounded before they are made."""
        clip = self.writers.get(quantize.input[0])
        if clip is None or clip.op_type != "Clip" or len(clip.input) < 3:
            return None, None
        bounds = [self.constants.get(name) for name in clip.input[1:3]]
        if any(bound is None for bound in bounds):
            return None, None
        low, high = (float(bound.reshape(())) / scale for bound in bounds if bound is not None)
        rounding = _OF_HALF if any(b is not None and b.dtype == np.float16 for b in bounds) else _OF_SINGLE
        if any(abs(code - round(code)) > rounding * max(1, abs(code)) for code in (low, high)):
            return None, None  # the network's own, which knows no codes
        limits = np.iinfo(np.int8)
        return max(round(low), int(limits.min)), min(round(high), int(limits.max))

    def weight_scales(self, model: onnx.ModelProto) -> dict[str, list[Array]]:
        """Scales of the weights of layers that read codes, by name of the weight."""
        found: dict[str, list[Array]] = {}
        for node in model.graph.node:
            if node.op_type not in _WEIGHTED:
                continue
            dequantize = self.writers.get(node.input[1])
            while dequantize is not None and dequantize.op_type in _CARRIERS:
                dequantize = self.writers.get(dequantize.input[0])
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            scale = self.constants.get(dequantize.input[1])
            if scale is not None and scale.ndim == 1:
                found.setdefault(dequantize.input[0], []).append(scale)
        return found
