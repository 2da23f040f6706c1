"""Look into an ONNX file without the onnx package: which operators it has, where its weights lie.

The file is a protocol buffer: a message is a list of (field number, value); a nested
message is bytes (https://protobuf.dev/programming-guides/encoding; numbers from onnx/onnx.proto3). Tensor
data is skipped.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.errors import ModelError

__all__ = ["OnnxSummary", "summarize"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_OP_TYPE, _NODE_ATTRIBUTE = 4, 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14


@dataclass(frozen=True)
class OnnxSummary:
    """operators: how often each operator type occurs, subgraphs included.

    external_data: some weights lie in other files; functions: the model defines operators of its own.
    """

    operators: dict[str, int]
    external_data: bool
    functions: bool


def summarize(content: bytes) -> OnnxSummary:
    """Summary of a serialized ONNX model; raises ModelError if it is not one."""
    model = list(_fields(memoryview(content)))
    graphs = [value for field, value in model if field == _MODEL_GRAPH and isinstance(value, memoryview)]
    require(
        len(graphs) == 1, "The model file is not an ONNX model: it holds no graph. Export the bundle again."
    )
    operators: Counter[str] = Counter()
    external = False
    while graphs:
        for field, value in _messages(graphs.pop()):
            if field == _GRAPH_INITIALIZER:
                external |= _is_external(value)
            elif field == _GRAPH_NODE:
                operators[_operator(value)] += 1
                for part, inner in _attribute_parts(value):
                    if part in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                        graphs.append(inner)
                    else:
                        external |= _is_external(inner)
    functions = any(field == _MODEL_FUNCTIONS for field, _ in model)
    return OnnxSummary(dict(sorted(operators.items())), external, functions)


def _operator(node: memoryview) -> str:
    names = [bytes(value) for field, value in _messages(node) if field == _NODE_OP_TYPE]
    return names[-1].decode(errors="replace") if names else ""


def _attribute_parts(node: memoryview) -> Iterator[tuple[int, memoryview]]:
    parts = (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS)
    for field, attribute in _messages(node):
        if field == _NODE_ATTRIBUTE:
            yield from ((part, value) for part, value in _messages(attribute) if part in parts)


def _is_external(tensor: memoryview) -> bool:
    fields = _fields(tensor)
    return any(
        f == _TENSOR_EXTERNAL_DATA or (f == _TENSOR_DATA_LOCATION and value == 1) for f, value in fields
    )


def _messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    for field, value in _fields(message):
        if isinstance(value, memoryview):
            yield field, value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field's number with its integer or its bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield field, value
            continue
        if wire == _BYTES:
            size, position = _varint(message, position)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ModelError("The model file is not an ONNX model: it is damaged or of another format.")
        require(position + size <= len(message), "The model file is cut short. Copy or export it again.")
        yield field, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        require(position < len(message), "The model file is cut short. Copy or export it again.")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ModelError("The model file is not an ONNX model: it is damaged or of another format.")
