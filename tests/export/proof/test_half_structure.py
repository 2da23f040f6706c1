"""A float16 graph beside its float32 one: equal but for rounding, and every other difference is named."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from saq_qat_export.proof.half_structure import structural_differences

Graph = onnx.GraphProto
THIRD = np.array([1 / 3], np.float32)


def graph(half: bool) -> onnx.ModelProto:
    """Images in float32, scaled, softmaxed over the last axis, reshaped, and logits in float32."""
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    value = THIRD.astype(np.float16) if half else THIRD
    body = [
        helper.make_node("Mul", ["h" if half else "x", "third"], ["scaled"], name="scale"),
        helper.make_node("Softmax", ["scaled"], ["soft"], axis=-1, name="softmax"),
        helper.make_node("Cast", ["soft"], ["inner"], to=element),
        helper.make_node("Reshape", ["inner", "shape"], ["z" if half else "y"]),
    ]
    if half:
        body.insert(0, helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16))
        body.append(helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT))
    constants = [
        numpy_helper.from_array(value, "third"),
        numpy_helper.from_array(np.array([0, 4], np.int64), "shape"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    made = helper.make_graph(body, "pair", ends[:1], ends[1:], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)])


def differences(change: Callable[[Graph], None] = lambda _: None) -> Sequence[str]:
    half = graph(half=True)
    change(half.graph)
    return list(structural_differences(graph(half=False).SerializeToString(), half.SerializeToString()))


def test_the_same_operations_with_constants_rounded_once_are_no_difference() -> None:
    assert differences() == []


def test_names_do_not_count() -> None:
    def renamed(found: Graph) -> None:
        for node in found.node:
            node.name = ""
            for names in (node.input, node.output):
                names[:] = ["other" if name == "soft" else name for name in names]

    assert differences(renamed) == []


def node_of(found: Graph, op_type: str) -> onnx.NodeProto:
    found_node: onnx.NodeProto = next(node for node in found.node if node.op_type == op_type)
    return found_node


def another_axis(found: Graph) -> None:
    node_of(found, "Softmax").attribute[0].i = 1


def another_operation(found: Graph) -> None:
    node_of(found, "Softmax").op_type = "LogSoftmax"


def next_half(found: Graph) -> None:
    value = np.nextafter(THIRD.astype(np.float16), np.float16(1))
    found.initializer[0].CopyFrom(numpy_helper.from_array(value, "third"))


def another_shape(found: Graph) -> None:
    found.initializer[1].CopyFrom(numpy_helper.from_array(np.array([0, -1], np.int64), "shape"))


def operation_left_out(found: Graph) -> None:
    softmax = node_of(found, "Softmax")
    node_of(found, "Reshape").input[0] = "scaled"
    found.node.remove(softmax)
    found.node.remove(next(node for node in found.node if node.output[0] == "inner"))


def another_value(found: Graph) -> None:
    node_of(found, "Softmax").input[0] = "h"


def input_left_out(found: Graph) -> None:
    del node_of(found, "Mul").input[1]


def another_output(found: Graph) -> None:
    found.node[-1].input[0] = "soft"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_axis, "attributes of Softmax soft"),
        (another_operation, "LogSoftmax soft stands where the float32 graph has Softmax soft"),
        (next_half, "input 1 of Mul scaled"),
        (another_shape, "input 1 of Reshape z"),
        (operation_left_out, "2 operations, where the float32 graph has 4"),
        (another_value, "input 0 of Softmax soft"),
        (input_left_out, "number of inputs of Mul scaled"),
        (another_output, "output y is another value"),
    ],
)
def test_every_other_difference_is_named(change: Callable[[Graph], None], message: str) -> None:
    assert message in differences(change)
