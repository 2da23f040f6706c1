"""Small edits of a deploy view and of an ONNX file, by name: what mutants are made of."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx

__all__ = [
    "Array",
    "Edit",
    "ViewEdit",
    "add_to",
    "attribute",
    "bound",
    "buffer",
    "bypassed",
    "constant",
    "flip_sign",
    "node_of",
    "operation",
    "own_constant",
    "read_instead",
    "swapped",
    "times",
    "unused_constant",
    "zeroed",
]

Array = npt.NDArray[Any]
Edit = Callable[[onnx.ModelProto], None]
ViewEdit = Callable[[fx.GraphModule], None]
Change = Callable[[Array], Array]


def times(factor: float) -> Change:
    return lambda values: (values * np.float64(factor)).astype(values.dtype)


def add_to(place: Sequence[int], amount: float) -> Change:
    """One element, whose index is ``place``, larger by ``amount``."""

    def change(values: Array) -> Array:
        changed = values.copy()
        changed[tuple(place)] += values.dtype.type(amount)
        return changed

    return change


def flip_sign(values: Array) -> Array:
    return -values


def zeroed(values: Array) -> Array:
    return np.zeros_like(values)


# ---- deploy view


def buffer(path: str, change: Change) -> ViewEdit:
    """A buffer of the deploy view, such as ``stem.0.bias``."""

    def edit(view: fx.GraphModule) -> None:
        tensor: Tensor = view.state_dict()[path]
        changed = np.ascontiguousarray(change(tensor.numpy().copy())).reshape(tensor.shape)
        tensor.copy_(torch.from_numpy(changed))

    return edit


# ---- ONNX file


def constant(name: str, change: Change) -> Edit:
    """An initializer."""

    def edit(model: onnx.ModelProto) -> None:
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        changed = change(numpy_helper.to_array(tensor))
        data_type = tensor.data_type
        if data_type == TensorProto.UINT4:
            tensor.CopyFrom(helper.make_tensor(name, data_type, changed.shape, changed.flatten().tolist()))
        else:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), name))

    return edit


def node_of(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    found: onnx.NodeProto
    (found,) = (node for node in model.graph.node if output in node.output)
    return found


def own_constant(output: str, index: int, change: Change) -> Edit:
    """The constant that the node writing ``output`` reads at ``index``, changed for this node alone."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, output)
        shared = next(t for t in model.graph.initializer if t.name == node.input[index])
        own = numpy_helper.from_array(change(numpy_helper.to_array(shared)), f"{output}.{index}")
        model.graph.initializer.append(own)
        node.input[index] = own.name
        if not any(shared.name in other.input for other in model.graph.node):
            model.graph.initializer.remove(shared)

    return edit


def bound(output: str, index: int, amount: int) -> Edit:
    """A bound of the Clip that writes ``output``: 1 is the lower, 2 the upper one."""
    return own_constant(output, index, lambda values: (values.astype(np.int64) + amount).astype(values.dtype))


def attribute(output: str, **values: Any) -> Edit:
    """Attributes of the node that writes ``output``."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, output)
        kept = [attribute for attribute in node.attribute if attribute.name not in values]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())

    return edit


def operation(output: str, op_type: str, *, keep: Sequence[str] = ()) -> Edit:
    """Another operation writes ``output``, with those attributes of the old one."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, output)
        node.op_type = op_type
        kept = [attribute for attribute in node.attribute if attribute.name in keep]
        del node.attribute[:]
        node.attribute.extend(kept)

    return edit


def read_instead(output: str, index: int, name: str) -> Edit:
    """The node that writes ``output`` reads another tensor at ``index``."""

    def edit(model: onnx.ModelProto) -> None:
        node_of(model, output).input[index] = name

    return edit


def swapped(first: str, second: str) -> Edit:
    """Two initializers have each other's values."""

    def edit(model: onnx.ModelProto) -> None:
        a, b = (next(t for t in model.graph.initializer if t.name == name) for name in (first, second))
        held = onnx.TensorProto()
        held.CopyFrom(a)
        a.CopyFrom(b)
        b.CopyFrom(held)
        a.name, b.name = first, second

    return edit


def bypassed(output: str) -> Edit:
    """The node that writes ``output`` is gone: its first input takes the name."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, output)
        writer = node_of(model, node.input[0])
        writer.output[list(writer.output).index(node.input[0])] = output
        model.graph.node.remove(node)

    return edit


def unused_constant(name: str) -> Edit:
    """A number that nothing reads."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), name))

    return edit
