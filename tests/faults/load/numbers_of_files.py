"""Every number of an ONNX file changed, one at a time, by the smallest step and by a little more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

__all__ = ["Change", "changed", "changes", "stepped"]

Array = npt.NDArray[Any]
_FLOATS: dict[str, Callable[[np.float32], np.float32]] = {
    "one float up": lambda x: np.nextafter(x, np.float32(np.inf)),
    "one float down": lambda x: np.nextafter(x, np.float32(-np.inf)),
    "1e-4 up": lambda x: np.float32(x * np.float32(1.0001)),
    "1e-4 down": lambda x: np.float32(x * np.float32(0.9999)),
}
_INTEGERS = {"+1": 1, "-1": -1}


@dataclass(frozen=True)
class Change:
    """One number. attribute: empty for an element of an initializer; else `name` is the node's."""

    name: str
    attribute: str
    index: int
    how: str

    def __str__(self) -> str:
        return f"{self.name}{'.' + self.attribute if self.attribute else ''}[{self.index}] {self.how}"


def changes(content: bytes) -> Iterator[Change]:
    """In file order: elements of initializers, then attributes of nodes."""
    graph = onnx.load_from_string(content).graph
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        for index in range(array.size):
            if array.dtype.kind == "f":
                yield from (Change(tensor.name, "", index, how) for how in _FLOATS)
                continue
            limits, value = np.iinfo(array.dtype), int(array.reshape(-1)[index])
            for how, step in _INTEGERS.items():
                if limits.min <= value + step <= limits.max:
                    yield Change(tensor.name, "", index, how)
    for node in graph.node:
        for attribute in node.attribute:
            for index in range(len(_values(attribute))):
                hows = (
                    _FLOATS if attribute.type in (AttributeProto.FLOAT, AttributeProto.FLOATS) else _INTEGERS
                )
                yield from (Change(node.name, attribute.name, index, how) for how in hows)


def changed(content: bytes, change: Change) -> bytes:
    """The file with that one number changed."""
    model = onnx.load_from_string(content)
    if change.attribute:
        node = next(node for node in model.graph.node if node.name == change.name)
        place = next(i for i, a in enumerate(node.attribute) if a.name == change.attribute)
        values = _values(node.attribute[place])
        is_list = node.attribute[place].type in (AttributeProto.INTS, AttributeProto.FLOATS)
        values[change.index] = stepped(values[change.index], change.how)
        new = helper.make_attribute(change.attribute, values if is_list else values[0])
        node.attribute[place].CopyFrom(new)
        return bytes(model.SerializeToString())
    place = next(i for i, tensor in enumerate(model.graph.initializer) if tensor.name == change.name)
    array: Array = numpy_helper.to_array(model.graph.initializer[place]).copy()
    flat = array.reshape(-1)
    flat[change.index] = stepped(flat[change.index], change.how)
    model.graph.initializer[place].CopyFrom(_tensor(array, change.name))
    return bytes(model.SerializeToString())


def _tensor(array: Array, name: str) -> TensorProto:
    return numpy_helper.from_array(array, name)


def _values(attribute: AttributeProto) -> list[Any]:
    """Numbers of an attribute; none of texts and tensors."""
    value = helper.get_attribute_value(attribute)
    if attribute.type in (AttributeProto.INT, AttributeProto.FLOAT):
        return [value]
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else []


def stepped(value: Any, how: str) -> Any:
    """Another number, by the step of that name."""
    if how in _INTEGERS:
        return int(value) + _INTEGERS[how]
    return float(_FLOATS[how](np.float32(value)))
