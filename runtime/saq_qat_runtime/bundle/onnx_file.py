"""Look into an ONNX file without the onnx package: its operators, how they are wired, where its weights lie.

The file is a protocol buffer: a message is a list of (field number, value); a nested
message is bytes (https://protobuf.dev/programming-guides/encoding; numbers from onnx/onnx.proto3). Tensor
data is skipped.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.errors import ModelError

__all__ = [
    "INT8",
    "UINT8",
    "UNDEFINED",
    "OnnxNode",
    "OnnxSummary",
    "ParsedGraph",
    "parse_graph",
    "refuse_unsafe",
    "summarize",
    "with_outputs",
]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT = 1, 5, 12
_VALUE_NAME = 1
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP_TYPE, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 2, 8, 13, 14
UNDEFINED, UINT8, INT8 = 0, 2, 3
"""Element types of ONNX tensors (``TensorProto.DataType``)."""

# A number in the file, not a promised shape, sizes their results: 136 bytes can ask for 16 GB.
_UNBOUNDED = frozenset({"ConstantOfShape", "Expand", "If", "Loop", "Range", "Scan", "Tile"})


@dataclass(frozen=True)
class OnnxSummary:
    """operators: how often each operator type occurs, subgraphs included.

    external_data: some weights lie in other files; functions: the model defines operators of its own.
    """

    operators: dict[str, int]
    external_data: bool
    functions: bool


@dataclass(frozen=True)
class OnnxNode:
    """One node: its operator, its name (may be empty) and the tensors it reads and writes."""

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ParsedGraph:
    """The nodes of a model's graph in order, and the element type of every constant by name."""

    nodes: tuple[OnnxNode, ...]
    constants: dict[str, int]


def parse_graph(content: bytes) -> ParsedGraph:
    """Nodes and constants of a serialized ONNX model, subgraphs left out; raises ModelError if it is none."""
    nodes: list[OnnxNode] = []
    constants: dict[str, int] = {}
    for field, value in _messages(_only_graph(content)):
        if field == _GRAPH_INITIALIZER:
            constants[_text(value, _TENSOR_NAME)] = _element_type(value)
        elif field == _GRAPH_NODE:
            node = OnnxNode(
                _text(value, _NODE_OP_TYPE),
                _text(value, _NODE_NAME),
                _texts(value, _NODE_INPUT),
                _texts(value, _NODE_OUTPUT),
            )
            nodes.append(node)
            if node.op_type == "Constant" and node.outputs:
                parts = _attribute_parts(value)
                types = [_element_type(inner) for part, inner in parts if part == _ATTRIBUTE_TENSOR]
                constants[node.outputs[0]] = types[0] if types else UNDEFINED
    return ParsedGraph(tuple(nodes), constants)


def _only_graph(content: bytes) -> memoryview:
    graphs = [value for field, value in _messages(memoryview(content)) if field == _MODEL_GRAPH]
    require(
        len(graphs) == 1, "The model file is not an ONNX model: it holds no graph. Export the bundle again."
    )
    return graphs[0]


def _texts(message: memoryview, wanted: int) -> tuple[str, ...]:
    found = (value for field, value in _messages(message) if field == wanted)
    return tuple(bytes(value).decode(errors="replace") for value in found)


def _text(message: memoryview, wanted: int) -> str:
    return (*_texts(message, wanted), "")[0]


def _element_type(tensor: memoryview) -> int:
    types = [value for field, value in _fields(tensor) if field == _TENSOR_DATA_TYPE]
    return next((value for value in types if isinstance(value, int)), UNDEFINED)


def summarize(content: bytes) -> OnnxSummary:
    """Summary of a serialized ONNX model; raises ModelError if it is not one."""
    graphs = [_only_graph(content)]
    operators: Counter[str] = Counter()
    external = False
    while graphs:
        for field, value in _messages(graphs.pop()):
            if field == _GRAPH_INITIALIZER:
                external |= _is_external(value)
            elif field == _GRAPH_NODE:
                operators[_text(value, _NODE_OP_TYPE)] += 1
                for part, inner in _attribute_parts(value):
                    if part in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                        graphs.append(inner)
                    else:
                        external |= _is_external(inner)
    functions = any(field == _MODEL_FUNCTIONS for field, _ in _fields(memoryview(content)))
    return OnnxSummary(dict(sorted(operators.items())), external, functions)


def refuse_unsafe(content: bytes) -> None:
    """Raise ModelError for a model that reads other files, brings operators of its own, or may take any
    amount of memory: no bundle needs any of that.
    """
    summary = summarize(content)
    require(
        not summary.external_data,
        "The model keeps weights in other files; a bundle holds them inside. Export again.",
    )
    require(not summary.functions, "The model defines functions of its own; a bundle holds plain operators.")
    found = sorted(_UNBOUNDED & summary.operators.keys())
    require(
        not found,
        f"The model uses {', '.join(found)}, whose results may be of any size; no bundle needs them.",
    )


def with_outputs(content: bytes, names: Iterable[str]) -> bytes:
    """The model with tensors of its graph as further outputs, whose types are left to the engine.

    Raises ModelError if it is none.
    """
    graph = _only_graph(content)
    outputs = b"".join(_field(_GRAPH_OUTPUT, _field(_VALUE_NAME, name.encode())) for name in names)
    parts = [_field(_MODEL_GRAPH, bytes(graph) + outputs)]
    for number, value in _fields(memoryview(content)):
        if number != _MODEL_GRAPH:  # a model has integers and messages beside it, in any order
            parts.append(_field(number, value))
    return b"".join(parts)


def _field(number: int, value: int | bytes | memoryview) -> bytes:
    """A field with an integer or with bytes."""
    if isinstance(value, int):
        return _to_varint(number << 3 | _VARINT) + _to_varint(value)
    return _to_varint(number << 3 | _BYTES) + _to_varint(len(value)) + bytes(value)


def _to_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


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
