"""An ONNX model cut at its codes, without the onnx package: codes are given, and computed beside that.

What reads codes reads those that are given. So each tensor of codes is computed from given codes alone, a
difference is counted where it arises, and codes may be given that no image leads to.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.onnx_tensor import INT8, UINT8
from saq_qat_runtime.bundle.protobuf import encode_field, fields, message_of, messages, text_of
from saq_qat_runtime.errors import ModelError

__all__ = ["GivenCodes", "own_name", "with_given_codes"]

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUES = 1, 11, 12, 13
_NODE_OUTPUT = 2
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TYPE_ELEMENT, _TYPE_SHAPE = 1, 2, 1, 1, 2
_SHAPE_DIM, _DIM_VALUE, _DIM_NAME = 1, 1, 2
_ELEMENTS = {"uint8": UINT8, "int8": INT8}


@dataclass(frozen=True)
class GivenCodes:
    """dtype: "uint8" or "int8". shape: of one sample."""

    dtype: str
    shape: tuple[int, ...]


def own_name(tensor: str) -> str:
    """Name of the output that holds a tensor's codes as the model computes them."""
    return f"{tensor}.own"


def with_given_codes(content: bytes, given: Mapping[str, GivenCodes], floats: tuple[str, ...]) -> bytes:
    """The model with each tensor of `given` as an input, and `own_name` of it as an output.

    given: what codes are given, by tensor; each in a batch of its own.
    floats: further tensors that become outputs as they are, if they are none.
    Raises ModelError if it is no model, or writes a tensor not exactly once.
    """
    graph = message_of(memoryview(content), _MODEL_GRAPH)
    if graph is None:
        raise ModelError("The model file is not an ONNX model: it holds no graph. Export the bundle again.")
    own = {name.encode(): own_name(name).encode() for name in given}
    seen: dict[bytes, int] = dict.fromkeys((*own, *(name.encode() for name in floats)), 0)
    parts = []
    for number, value in fields(graph):
        if number == _GRAPH_NODE and isinstance(value, memoryview):
            parts.append(encode_field(number, _renamed(value, own, seen)))
        elif number != _GRAPH_VALUES:  # shapes and types of inner tensors, which other batches contradict
            parts.append(encode_field(number, value))
    lost = sorted(name.decode(errors="replace") for name, times in seen.items() if times != 1)
    require(not lost, f"The model must write {', '.join(lost[:3])} once. Copy the bundle or export it again.")
    parts += [encode_field(_GRAPH_INPUT, _declared(name, codes)) for name, codes in given.items()]
    parts += [encode_field(_GRAPH_OUTPUT, encode_field(_VALUE_NAME, name)) for name in own.values()]
    outputs = {text_of(value, _VALUE_NAME) for number, value in messages(graph) if number == _GRAPH_OUTPUT}
    added = (name.encode() for name in floats if name not in outputs)
    parts += [encode_field(_GRAPH_OUTPUT, encode_field(_VALUE_NAME, name)) for name in added]
    others = [
        encode_field(number, value) for number, value in fields(memoryview(content)) if number != _MODEL_GRAPH
    ]
    return b"".join([*others, encode_field(_MODEL_GRAPH, b"".join(parts))])


def _renamed(node: memoryview, own: Mapping[bytes, bytes], seen: dict[bytes, int]) -> bytes:
    """A node whose results have the names in `own`."""
    parts = []
    for number, value in messages(node):
        written = bytes(value) if number == _NODE_OUTPUT else b""
        if written in seen:
            seen[written] += 1
        parts.append(encode_field(number, own.get(written, value)))
    return b"".join(parts)


def _declared(name: str, codes: GivenCodes) -> bytes:
    """An input of any batch, named by the tensor so that the batches of two may differ."""
    batch = encode_field(_DIM_NAME, f"{name}.batch".encode())
    sizes = [batch, *(encode_field(_DIM_VALUE, size) for size in codes.shape)]
    shape = b"".join(encode_field(_SHAPE_DIM, size) for size in sizes)
    element = encode_field(_TYPE_ELEMENT, _ELEMENTS[codes.dtype])
    tensor = encode_field(_TYPE_TENSOR, element + encode_field(_TYPE_SHAPE, shape))
    return encode_field(_VALUE_NAME, name.encode()) + encode_field(_VALUE_TYPE, tensor)
