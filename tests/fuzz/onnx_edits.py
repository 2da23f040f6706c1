"""Harm done to a model of ONNX, message by message: nodes, attributes, constants, shapes and names."""

from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from saq_qat_runtime.bundle.onnx_operators import OPERATORS
from tests.fuzz.mutate import ODD_NUMBERS

__all__ = ["edited_model"]

_OPERATORS = (
    *sorted(OPERATORS),
    "If",
    "Loop",
    "RandomNormal",
    "OneHot",
    "Range",
    "NonZero",
    "Tile",
    "QLinearConv",
)
_ATTRIBUTES = (
    "axis", "pads", "strides", "dilations", "kernel_shape", "group", "keepdims", "axes", "to", "auto_pad",
    "ceil_mode", "transB", "transA", "mode", "perm", "block_size", "allowzero", "output_shape", "value",
)  # fmt: skip  # one value a line is a page
_WHOLE = [int(number) for number in ODD_NUMBERS if isinstance(number, int) and abs(number) < 2**63]
_NAMES = ("", "x", "é", "a/b", "image", "logits", "x" * 3000)


def edited_model(random: Random, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with one to four edits."""
    edited = onnx.ModelProto()
    edited.CopyFrom(model)
    for _ in range(random.choice((1, 1, 2, 4))):
        random.choice(_EDITS)(random, edited)
    return edited


def _node(random: Random, model: onnx.ModelProto) -> onnx.NodeProto:
    node: onnx.NodeProto = random.choice(list(model.graph.node) or [onnx.NodeProto()])
    return node


def _names(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    named = [value.name for value in (*graph.initializer, *graph.input)]
    return [*named, *(name for node in graph.node for name in node.output), *_NAMES]


def _remove_node(random: Random, model: onnx.ModelProto) -> None:
    if model.graph.node:
        del model.graph.node[random.randrange(len(model.graph.node))]


def _double_node(random: Random, model: onnx.ModelProto) -> None:
    model.graph.node.append(_node(random, model))


def _move_node(random: Random, model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    random.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _insert_node(random: Random, model: onnx.ModelProto) -> None:
    """An operator between a node and what it reads."""
    node = _node(random, model)
    if not node.input:
        return
    place = random.randrange(len(node.input))
    inputs = [node.input[place], *random.sample(_names(model), random.randrange(3))]
    made = helper.make_node(random.choice(_OPERATORS), inputs, [f"made_{random.randrange(1000)}"])
    node.input[place] = made.output[0]
    at = list(model.graph.node).index(node)
    model.graph.node.insert(at, made)


def _change_operator(random: Random, model: onnx.ModelProto) -> None:
    node = _node(random, model)
    node.op_type = random.choice((*_OPERATORS, "", "conv"))
    node.domain = random.choice(("", "", "", "ai.onnx", "com.microsoft", "x"))


def _change_input(random: Random, model: onnx.ModelProto) -> None:
    node = _node(random, model)
    name = random.choice(_names(model))
    if node.input and random.random() < 0.7:
        node.input[random.randrange(len(node.input))] = name
    else:
        node.input.append(name)


def _change_output(random: Random, model: onnx.ModelProto) -> None:
    node = _node(random, model)
    if node.output and random.random() < 0.7:
        node.output[random.randrange(len(node.output))] = random.choice(_names(model))
    else:
        node.output.append(random.choice(_names(model)))


def _value(random: Random) -> Any:
    tensor = numpy_helper.from_array(np.full((random.choice((1, 3)),), 2, np.int64))
    whole = [random.choice(_WHOLE) for _ in range(random.randrange(1, 7))]
    return random.choice(
        (random.choice(_WHOLE), whole, 1.5, "SAME_UPPER", "VALID", "linear", [0.5, 2.0], tensor)
    )


def _change_attribute(random: Random, model: onnx.ModelProto) -> None:
    node = _node(random, model)
    attributes = list(node.attribute)
    name = random.choice([*(attribute.name for attribute in attributes), *random.sample(_ATTRIBUTES, 2)])
    del node.attribute[:]
    node.attribute.extend(attribute for attribute in attributes if attribute.name != name)
    if random.random() < 0.85:
        value = _value(random)
        odd = [attribute for attribute in attributes if attribute.name == name and attribute.ints]
        if odd and random.random() < 0.7:
            value = list(odd[0].ints)
            value[random.randrange(len(value))] = random.choice(_WHOLE)
        node.attribute.append(helper.make_attribute(name, value))


def _nudge_attribute(random: Random, model: onnx.ModelProto) -> None:
    """A number of an attribute a little larger or smaller, as no allow-list can refuse."""
    found = [attribute for node in model.graph.node for attribute in node.attribute]
    whole = [each for each in found if each.type in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS)]
    if not whole:
        return
    attribute, step = random.choice(whole), random.choice((-1, 1, 2, 7, 100))
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i += step
    elif attribute.ints:
        attribute.ints[random.randrange(len(attribute.ints))] += step


def _nudge_constant(random: Random, model: onnx.ModelProto) -> None:
    """One number of a constant, of any value its bytes can have."""
    stored = [tensor for tensor in model.graph.initializer if tensor.raw_data]
    if not stored:
        return
    tensor = random.choice(stored)
    content = bytearray(tensor.raw_data)
    place = random.randrange(len(content))
    content[place] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    tensor.raw_data = bytes(content)


def _change_constant(random: Random, model: onnx.ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = random.choice(model.graph.initializer)
    match random.randrange(7):
        case 0:
            tensor.dims[:] = [random.choice((*_WHOLE, 1, 3, 8)) for _ in range(random.randrange(6))]
        case 1:
            tensor.data_type = random.randrange(27)
        case 2:
            tensor.raw_data = tensor.raw_data[: random.randrange(len(tensor.raw_data) + 1)]
        case 3:
            tensor.raw_data = bytes(random.choice((0, 0x7F, 0x80, 0xFF)) for _ in tensor.raw_data)
        case 4:
            tensor.int64_data.extend(_WHOLE[:3])
        case 5:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(
                key="location", value=random.choice(("/etc/passwd", "../x", "golden.npz"))
            )
        case _:
            numbers = [
                random.choice((0, 1, -1, 2, 8, 4096, 1 << 20, *_WHOLE)) for _ in range(random.randrange(1, 7))
            ]
            tensor.CopyFrom(numpy_helper.from_array(np.array(numbers, np.int64), tensor.name))


def _change_interface(random: Random, model: onnx.ModelProto) -> None:
    values = [*model.graph.input, *model.graph.output]
    if not values:
        return
    value = random.choice(values)
    kind = value.type.tensor_type
    match random.randrange(4):
        case 0:
            value.name = random.choice(_NAMES)
        case 1:
            kind.elem_type = random.randrange(27)
        case 2 if kind.shape.dim:
            kind.shape.dim[random.randrange(len(kind.shape.dim))].dim_value = random.choice(_WHOLE)
        case _:
            kind.shape.dim.add().dim_value = random.choice((1, 2**31))


def _change_header(random: Random, model: onnx.ModelProto) -> None:
    match random.randrange(5):
        case 0:
            model.opset_import[0].version = random.choice((0, 1, 7, 13, 17, 18, 20, 25, 99, 2**40))
        case 1:
            model.ir_version = random.choice((0, 3, 9, 12, 99))
        case 2:
            model.opset_import.add(domain=random.choice(("com.microsoft", "x", "")), version=1)
        case 3:
            model.functions.add(name="Conv", domain="")
        case _:
            model.graph.sparse_initializer.add().dims.extend([4, 4])


_EDITS = (
    _remove_node, _double_node, _move_node, _insert_node, _insert_node, _change_operator, _change_input,
    _change_output, _change_attribute, _change_attribute, _change_constant, _change_constant,
    _change_interface, _change_header, *[_nudge_attribute, _nudge_constant] * 4,
)  # fmt: skip  # one value a line is a page
