"""Repeated tensors keep their numbers without Expand and Tile, for every batch."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from saq_qat_export.graph.passes.batch import repeat_by_broadcasting

IMAGES = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)


def of_the_image(nodes: list[Any], result: str, wanted: list[Any], constants: list[Any]) -> onnx.ModelProto:
    """From the image to y, of the shape ``wanted``, as ``result`` before it is."""
    graph = helper.make_graph(
        nodes, result,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, wanted)], constants,
        value_info=[helper.make_tensor_value_info(result, TensorProto.FLOAT, wanted)],
    )  # fmt: skip  # one value a line is a page
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def model(kind: str, given: list[int], wanted: list[Any], *, constant: bool) -> onnx.ModelProto:
    """A constant, or the image cut to the shape ``given``, repeated to the shape ``wanted``."""
    numbers = IMAGES[0].reshape(-1)[: int(np.prod(given))].reshape(given)
    nodes, constants, source = [], [numpy_helper.from_array(numbers, "constant")], "constant"
    if not constant:
        source = "part"
        for name, values in (("starts", [0, 0, 0]), ("ends", given[1:]), ("axes", [1, 2, 3])):
            constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        nodes.append(helper.make_node("Slice", ["image", "starts", "ends", "axes"], ["part"]))
    own: list[Any] = given if constant else ["N", *given[1:]]
    sizes = [int(b) // int(a) if kind == "Tile" else b for a, b in zip(own[1:], wanted[1:], strict=True)]
    constants.append(numpy_helper.from_array(np.array(sizes, np.int64), "rest"))
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    nodes.append(helper.make_node("Shape", ["image"], ["batch"], start=0, end=1))
    nodes.append(helper.make_node("Concat", ["batch" if constant else "one", "rest"], ["sizes"], axis=0))
    nodes.append(helper.make_node(kind, [source, "sizes"], ["repeated"]))
    nodes.append(helper.make_node("Neg", ["repeated"], ["y"]))
    return of_the_image(nodes, "repeated", wanted, constants)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("Expand", [1, 3, 1, 1], ["N", 3, 4, 4]),
        ("Expand", [1, 1, 4, 4], ["N", 2, 4, 4]),
        ("Tile", [1, 3, 1, 4], ["N", 3, 4, 4]),
        ("Tile", [1, 3, 4, 4], ["N", 6, 4, 8]),
    ],
)
def test_numbers_stay_and_the_operator_goes(
    kind: str, given: list[int], wanted: list[Any], constant: bool
) -> None:
    before = model(kind, given, wanted, constant=constant)
    repeated = ir.from_proto(before)
    repeat_by_broadcasting(repeated)
    after = ir.to_proto(repeated)
    onnx.checker.check_model(after, full_check=True)
    assert not {"Expand", "Tile"} & {node.op_type for node in after.graph.node}
    for batch in (1, 2):
        images = IMAGES[:batch]
        results: list[Any] = [
            ReferenceEvaluator(each).run(None, {"image": images}) for each in (before, after)
        ]
        (expected,), (found,) = results
        np.testing.assert_array_equal(found, expected)
        assert found.shape == (batch, *wanted[1:])


@pytest.mark.parametrize("fill", [None, 2.5])
@pytest.mark.parametrize("wanted", [["N", 3, 2], [1, "N", 4], [3, "N"]])
def test_one_number_fills_a_tensor_of_every_image(wanted: list[Any], fill: float | None) -> None:
    """Also where the batch is not the first axis, as of the states of a recurrent layer."""
    given = {} if fill is None else {"value": numpy_helper.from_array(np.array([fill], np.float32))}
    sizes = ["batch" if size == "N" else f"size_{axis}" for axis, size in enumerate(wanted)]
    constants = [
        numpy_helper.from_array(np.array([size], np.int64), name)
        for name, size in zip(sizes, wanted, strict=True)
        if size != "N"
    ]
    nodes = [
        helper.make_node("Shape", ["image"], ["batch"], start=0, end=1),
        helper.make_node("Concat", sizes, ["sizes"], axis=0),
        helper.make_node("ConstantOfShape", ["sizes"], ["filled"], **given),
        helper.make_node("Neg", ["filled"], ["y"]),
    ]
    model = of_the_image(nodes, "filled", wanted, constants)
    changed = ir.from_proto(model)
    repeat_by_broadcasting(changed)
    after = ir.to_proto(changed)
    onnx.checker.check_model(after, full_check=True)
    assert "ConstantOfShape" not in {node.op_type for node in after.graph.node}
    for batch in (1, 2):
        (found,) = ReferenceEvaluator(after).run(None, {"image": IMAGES[:batch]})
        shape = [batch if size == "N" else size for size in wanted]
        np.testing.assert_array_equal(found, np.full(shape, -(fill or 0.0), np.float32))
