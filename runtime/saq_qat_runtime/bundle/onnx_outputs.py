"""An ONNX model whose inner tensors are outputs too, without the onnx package."""

from collections.abc import Iterable

from saq_qat_runtime.bundle.protobuf import encode_field, fields, message_of
from saq_qat_runtime.errors import ModelError

__all__ = ["with_outputs"]

_MODEL_GRAPH, _GRAPH_OUTPUT, _VALUE_NAME = 7, 12, 1


def with_outputs(content: bytes, names: Iterable[str]) -> bytes:
    """The model with tensors of its graph as further outputs, whose types are left to the engine.

    Raises ModelError if it is none.
    """
    graph = message_of(memoryview(content), _MODEL_GRAPH)
    if graph is None:
        raise ModelError("The model file is not an ONNX model: it holds no graph. Export the bundle again.")
    outputs = b"".join(
        encode_field(_GRAPH_OUTPUT, encode_field(_VALUE_NAME, name.encode())) for name in names
    )
    parts = [encode_field(_MODEL_GRAPH, bytes(graph) + outputs)]
    for number, value in fields(memoryview(content)):
        if number != _MODEL_GRAPH:  # a model has integers and messages beside it, in any order
            parts.append(encode_field(number, value))
    return b"".join(parts)
