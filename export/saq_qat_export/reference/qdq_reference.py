"""A QuantizeLinear/DequantizeLinear graph read as integers: the file alone says what is computed.

Convolutions, products, sums and means of dequantized codes stay symbolic until a QuantizeLinear reads them,
as in ``reference.deploy_view``, and are rounded by the same arithmetic; nothing of the network that the
file came from is looked at. Any other operator is evaluated in float by ``onnx.reference``.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from saq_qat.errors import ArtifactError
from saq_qat_export.reference import integer_math as math
from saq_qat_export.reference.integer_math import Codes, Float32
from saq_qat_export.reference.qdq_graph import QdqGraph
from saq_qat_export.reference.qdq_layers import IntegerOperands, accumulate, operands, pooling_window
from saq_qat_export.reference.qdq_operators import (
    Array,
    Entry,
    StoredTensor,
    call,
    clip,
    dequantized,
    move,
    storage_type,
)
from saq_qat_export.reference.qdq_reading import QdqReading, QuantizedTensor
from saq_qat_export.reference.values import (
    Accumulator,
    Bounded,
    ChannelCodes,
    CodeTensor,
    Floats,
    Mean,
    Opaque,
    Sum,
    Value,
    to_codes,
)
from saq_qat_runtime.operators import MOVES

__all__ = ["read_qdq"]

# One input and one output of numbers; a MaxPool of codes is computed here, for its padding.
_CARRIERS = MOVES - {"Concat", "MaxPool", "Split"}


def read_qdq(
    model: onnx.ModelProto | bytes,
    images: Float32,
    taught: Mapping[str, Codes] | None = None,
    storage: Mapping[str, int] | None = None,
) -> QdqReading:
    """Interpret ``model`` on float32 images (N, C, H, W).

    Args:
        taught: codes without zero point, by tensor name, that later nodes read in place of the graph's own
            (teacher forcing).
        storage: zero points by tensor name under which kernels store codes, where they are not those of the
            file. Values do not depend on them, but the last bit of a float32 sum does.

    Raises:
        ArtifactError: a float bias is no multiple of input scale times weight scale, an accumulator leaves
            int32, or an operator on codes has no integer meaning here.
    """
    if isinstance(model, bytes):
        model = onnx.load_from_string(model)
    return _Interpreter(model, taught or {}, storage or {}).run(images)


class _Interpreter:
    def __init__(
        self, model: onnx.ModelProto, taught: Mapping[str, Codes], storage: Mapping[str, int]
    ) -> None:
        self.graph = model.graph
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.taught, self.storage = taught, storage
        self.values: dict[str, Entry] = {
            tensor.name: Opaque(numpy_helper.to_array(tensor)) for tensor in self.graph.initializer
        }
        self.wiring = QdqGraph(self.graph)
        self.unclipped = {
            name: clip.output[0]
            for name in self.wiring.quantizers
            if (clip := self.wiring.bound_of_codes(name)) is not None
        }
        self.tensors: dict[str, QuantizedTensor] = {}
        self.floats: dict[str, Float32] = {}
        self.layers: dict[str, IntegerOperands] = {}
        self.rescaled: list[str] = []
        self.handlers: dict[str, Callable[[onnx.NodeProto], Entry | None]] = {
            "QuantizeLinear": self._quantize,
            "DequantizeLinear": self._dequantize,
            "Conv": self._convolution,
            "Gemm": self._product,
            "MatMul": self._product,
            "Add": self._add,
            "GlobalAveragePool": self._mean,
            "MaxPool": self._max_pool,
            "Clip": self._clip,
            "Relu": self._clip,
            **dict.fromkeys(_CARRIERS, self._carry),
        }

    def run(self, images: Float32) -> QdqReading:
        (image,) = (entry.name for entry in self.graph.input if entry.name not in self.values)
        self.values[image] = Floats(images.astype(np.float32))
        for node in self.graph.node:
            handler = self.handlers.get(node.op_type)
            result = None if handler is None else handler(node)
            if result is None:
                self._evaluate(node)
            else:
                self.values[node.output[0]] = result
        logits = self._array(self.graph.output[0].name)
        return QdqReading(self.tensors, self.floats, self.layers, tuple(self.rescaled), logits)

    def _array(self, name: str) -> Array:
        entry = self.values[name]
        if isinstance(entry, StoredTensor):
            raise ArtifactError(
                f"{name}: codes are read by an operator without integer meaning here. "
                "Put a DequantizeLinear before it."
            )
        return np.asarray(entry.value) if isinstance(entry, Opaque) else entry.floats()

    def _optional(self, node: onnx.NodeProto, index: int) -> Array | None:
        """An input that may be left out."""
        given = len(node.input) > index and node.input[index]
        return self._array(node.input[index]) if given else None

    def _evaluate(self, node: onnx.NodeProto) -> None:
        """Any operator, by ONNX's own evaluator; of constants it makes constants, but for one per image."""
        names = [name for name in dict.fromkeys(node.input) if name]
        results = call(node, {name: self._array(name) for name in names}, self.opsets)
        is_constant = node.op_type != "Expand" and all(isinstance(self.values[n], Opaque) for n in names)
        for name, array in zip(node.output, results, strict=True):
            is_float = isinstance(array, np.ndarray) and array.dtype.kind == "f" and not is_constant
            self.values[name] = Floats(array.astype(np.float32)) if is_float else Opaque(array)

    def _quantize(self, node: onnx.NodeProto) -> Entry | None:
        value = self.values[node.input[0]]
        if isinstance(value, (Opaque, StoredTensor)):
            return None
        scale = self._array(node.input[1]).astype(np.float32)
        if scale.size != 1:
            raise ArtifactError(f"{node.name}: activations have one scale; this one has {scale.size}.")
        step = np.float32(scale.reshape(-1)[0])
        zero_point, codes = storage_type(node, self._optional(node, 2))
        name = node.output[0]
        kernel = self.storage.get(self.unclipped.get(name, name), zero_point)
        tensor = CodeTensor(to_codes(value, step, kernel, codes), step, kernel)
        if isinstance(value, Bounded):
            codes = value.narrow(step, codes)
        return self._note(name, StoredTensor(tensor, zero_point, codes))

    def _note(self, name: str, stored: StoredTensor) -> StoredTensor:
        """Remember the codes of a quantizer's last tensor, and go on with the taught ones."""
        if name in self.unclipped:
            return stored
        tensor = stored.tensor
        self.tensors[name] = QuantizedTensor(tensor.codes, tensor.scale, stored.range)
        if name not in self.taught:
            return stored
        codes = self.taught[name].reshape(tensor.codes.shape).astype(np.int32)
        return replace(stored, tensor=replace(tensor, codes=codes))

    def _dequantize(self, node: onnx.NodeProto) -> Value:
        entry = self.values[node.input[0]]
        scale = self._array(node.input[1]).astype(np.float32)
        is_activation = isinstance(entry, StoredTensor) and scale.size == 1
        stored = entry if is_activation and isinstance(entry, StoredTensor) else self._array(node.input[0])
        value = dequantized(node, stored, scale, self._optional(node, 2))
        if isinstance(stored, StoredTensor) and isinstance(value, CodeTensor):
            same = value.scale == stored.tensor.scale and value.codes is stored.tensor.codes
            self.rescaled += [] if same else [node.output[0]]
        return value

    def _product(self, node: onnx.NodeProto) -> Value | None:
        """Sums for the quantizer behind the kernel; floats where there is none."""
        a, b = (self.values[name] for name in node.input[:2])
        if node.op_type == "MatMul" and isinstance(a, CodeTensor) and isinstance(b, CodeTensor):
            sums: Value | None = Accumulator.of_product(a, b)
        else:
            sums = self._convolution(node)
        if sums is None or self.wiring.quantizer_behind(node.output[0]) is not None:
            return sums
        self.floats[node.output[0]] = sums.floats()
        return Floats(sums.floats())

    def _convolution(self, node: onnx.NodeProto) -> Value | None:
        """A layer: codes and constant weights."""
        x, weight = (self.values[name] for name in node.input[:2])
        if not (isinstance(x, CodeTensor) and isinstance(weight, ChannelCodes)):
            return None
        bias = self.values[node.input[2]] if len(node.input) > 2 and node.input[2] else None
        given = bias if isinstance(bias, ChannelCodes) else self._optional(node, 2)
        layer = operands(node, x, weight, given)
        self.layers[self._weight_name(node.input[1])] = layer
        return accumulate(node, x, layer)

    def _weight_name(self, name: str) -> str:
        """The tensor that holds a weight's codes: before its DequantizeLinear and what turns its axes."""
        turns = {"DequantizeLinear", "Transpose"}
        while (node := self.wiring.producers.get(name)) is not None and node.op_type in turns:
            name = node.input[0]
        return name

    def _add(self, node: onnx.NodeProto) -> Value | None:
        a, b = (self.values[name] for name in node.input)
        return Sum(a, b) if isinstance(a, CodeTensor) and isinstance(b, CodeTensor) else None

    def _mean(self, node: onnx.NodeProto) -> Value | None:
        x = self.values[node.input[0]]
        return Mean(x) if isinstance(x, CodeTensor) else None

    def _max_pool(self, node: onnx.NodeProto) -> Entry | None:
        window = pooling_window(node)
        if window is None:
            return None
        return move(node, self.values[node.input[0]], lambda codes: math.max_pool(codes, *window))

    def _carry(self, node: onnx.NodeProto) -> Entry | None:
        first, *rest = node.input
        others = {name: self._array(name) for name in rest if name}
        return move(
            node, self.values[first], lambda codes: call(node, {first: codes, **others}, self.opsets)[0]
        )

    def _clip(self, node: onnx.NodeProto) -> Entry | None:
        entry = self.values[node.input[0]]
        if isinstance(entry, Opaque):
            return None
        if node.op_type == "Relu":
            return clip(entry, np.zeros(()), None)
        result = clip(entry, self._optional(node, 1), self._optional(node, 2))
        return self._note(node.output[0], result) if isinstance(result, StoredTensor) else result
