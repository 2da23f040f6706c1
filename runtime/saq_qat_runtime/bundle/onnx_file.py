"""Look into an ONNX file without the onnx package: its operators, how they are wired, its tensors' shapes.

Numbers of fields are those of onnx/onnx.proto3. Tensor data is skipped.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.onnx_tensor import (
    INT8,
    UINT8,
    UNDEFINED,
    Attribute,
    StoredTensor,
    is_external,
    is_plain,
    read_attribute,
    read_tensor,
)
from saq_qat_runtime.bundle.protobuf import fields, message_of, messages, number_of, text_of, texts
from saq_qat_runtime.errors import ModelError

__all__ = [
    "INT8",
    "UINT8",
    "UNDEFINED",
    "OnnxNode",
    "OnnxSummary",
    "ParsedGraph",
    "parse_graph",
    "summarize",
]

_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_FUNCTIONS = 7, 8, 25
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_GRAPH_PARTS = (_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE)
_LARGEST_GRAPH = 50_000
_FIX = "No bundle has: copy or export it again."
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TYPE_ELEMENT, _TYPE_SHAPE = 1, 2, 1, 1, 2
_SHAPE_DIM, _DIM_VALUE = 1, 1

Declared: TypeAlias = tuple[int, tuple[int | None, ...] | None]


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
    """One node: its operator, its name (may be empty) and the tensors it reads and writes.

    plain: every attribute stands once, and is numbers, a string or a tensor.
    """

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    domain: str = ""
    attributes: dict[str, Attribute] = field(default_factory=dict)
    plain: bool = True


@dataclass(frozen=True)
class ParsedGraph:
    """The nodes of a model's graph in order, and the element type of every constant by name.

    inputs, outputs: element type and shape by name; a size that the file leaves open is None, and so is a
    shape that is not given at all. opset: of the standard operators, 0 if none is named. sparse: some
    constants are stored without their zeros.
    """

    nodes: tuple[OnnxNode, ...]
    constants: dict[str, int]
    initializers: tuple[StoredTensor, ...]
    inputs: dict[str, Declared]
    outputs: dict[str, Declared]
    opset: int
    sparse: bool


def parse_graph(content: bytes) -> ParsedGraph:
    """The graph of a serialized ONNX model, subgraphs left out; raises ModelError if it is none."""
    graph = _only_graph(content)
    parts: dict[int, list[memoryview]] = {}
    for number, value in _parts(graph):
        parts.setdefault(number, []).append(value)
    stored = [read_tensor(value) for value in parts.get(_GRAPH_INITIALIZER, ())]
    nodes = tuple(map(_node, parts.get(_GRAPH_NODE, ())))
    constants = {tensor.name: tensor.element_type for tensor in stored}
    for node in nodes:
        if node.op_type == "Constant" and node.outputs:
            found = node.attributes.get("value")
            kind = found.element_type if isinstance(found, StoredTensor) else UNDEFINED
            constants[node.outputs[0]] = kind
    return ParsedGraph(
        nodes,
        constants,
        tuple(stored),
        {text_of(value, _VALUE_NAME): _declared(value) for value in parts.get(_GRAPH_INPUT, ())},
        {text_of(value, _VALUE_NAME): _declared(value) for value in parts.get(_GRAPH_OUTPUT, ())},
        _opset(content),
        _GRAPH_SPARSE in parts,
    )


def summarize(content: bytes) -> OnnxSummary:
    """Summary of a serialized ONNX model; raises ModelError if it is not one."""
    graphs = [_only_graph(content)]
    operators: Counter[str] = Counter()
    external = False
    while graphs:
        for number, value in _parts(graphs.pop()):
            if number == _GRAPH_INITIALIZER:
                external |= is_external(value)
            elif number == _GRAPH_NODE:
                operators[text_of(value, _NODE_OP_TYPE)] += 1
                for part, inner in _attribute_parts(value):
                    if part in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                        graphs.append(inner)
                    else:
                        external |= is_external(inner)
    functions = any(number == _MODEL_FUNCTIONS for number, _ in fields(memoryview(content)))
    return OnnxSummary(dict(sorted(operators.items())), external, functions)


def _only_graph(content: bytes) -> memoryview:
    graph = message_of(memoryview(content), _MODEL_GRAPH)
    if graph is None:
        raise ModelError("The model file is not an ONNX model: it holds no graph. Export the bundle again.")
    return graph


def _opset(content: bytes) -> int:
    """The lowest that is named, as a file may name several."""
    found = (value for number, value in messages(memoryview(content)) if number == _MODEL_OPSETS)
    own = (value for value in found if text_of(value, _OPSET_DOMAIN) in ("", "ai.onnx"))
    return min((number_of(value, _OPSET_VERSION) or 0 for value in own), default=0)


def _parts(graph: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Nodes and tensors of a graph; raises ModelError if there are more than any network has."""
    count = 0
    for number, value in messages(graph):
        if number in _GRAPH_PARTS:
            count += 1
            require(
                count <= _LARGEST_GRAPH,
                f"The model has more than {_LARGEST_GRAPH:,} nodes and tensors. {_FIX}",
            )
            yield number, value


def _node(message: memoryview) -> OnnxNode:
    attributes: dict[str, Attribute] = {}
    plain = True
    for number, value in messages(message):
        if number == _NODE_ATTRIBUTE:
            name, found = read_attribute(value)
            plain &= name not in attributes and is_plain(value)
            attributes[name] = found
    return OnnxNode(
        text_of(message, _NODE_OP_TYPE),
        text_of(message, _NODE_NAME),
        texts(message, _NODE_INPUT),
        texts(message, _NODE_OUTPUT),
        text_of(message, _NODE_DOMAIN),
        attributes,
        plain,
    )


def _declared(value: memoryview) -> Declared:
    """Element type and shape of a graph's input or output."""
    kind = message_of(value, _VALUE_TYPE)
    tensor = None if kind is None else message_of(kind, _TYPE_TENSOR)
    if tensor is None:
        return UNDEFINED, None
    element, shape = number_of(tensor, _TYPE_ELEMENT) or UNDEFINED, message_of(tensor, _TYPE_SHAPE)
    if shape is None:
        return element, None
    sizes = (value for number, value in messages(shape) if number == _SHAPE_DIM)
    return element, tuple(number_of(size, _DIM_VALUE) for size in sizes)


def _attribute_parts(node: memoryview) -> Iterator[tuple[int, memoryview]]:
    parts = (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS)
    for number, attribute in messages(node):
        if number == _NODE_ATTRIBUTE:
            yield from ((part, value) for part, value in messages(attribute) if part in parts)
