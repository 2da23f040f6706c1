"""Constants written out at export: the numbers that the operators would compute."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from saq_qat_export.graph.passes.constants import fold_into_floats, write_filled_constants


def folded(graph: onnx.GraphProto) -> onnx.GraphProto:
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]))
    fold_into_floats(model, ())
    write_filled_constants(model)
    return ir.to_proto(model).graph


def test_layers_whose_bias_codes_are_equal_share_codes_and_not_biases() -> None:
    """Exporting stores equal tensors once; their scales differ."""
    scales = {"a": np.float32(0.5), "b": np.float32(0.25)}
    codes = np.array([1, -2], np.int32)
    nodes = [
        helper.make_node("DequantizeLinear", ["a.bias", f"{layer}.scale"], [f"{layer}.bias.values"])
        for layer in scales
    ]
    sums = [helper.make_node("Add", ["x", f"{layer}.bias.values"], [layer]) for layer in scales]
    graph = helper.make_graph(
        [*nodes, *sums],
        "biases",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info(layer, TensorProto.FLOAT, [2]) for layer in scales],
        [
            numpy_helper.from_array(codes, "a.bias"),
            *(numpy_helper.from_array(np.array(s), f"{n}.scale") for n, s in scales.items()),
        ],
    )
    found = folded(graph)
    stored = {entry.name: numpy_helper.to_array(entry) for entry in found.initializer}
    for node in found.node:
        assert node.op_type == "Add"
        np.testing.assert_array_equal(stored[node.input[1]], codes * scales[node.output[0]])


@pytest.mark.parametrize("value", [None, np.array([True]), np.array([3], np.int64)], ids=repr)
def test_a_constant_of_known_shape_is_written_out(value: np.ndarray | None) -> None:
    """The runtime refuses the operator, which asks for memory by a number in the file."""
    settings = {} if value is None else {"value": numpy_helper.from_array(value)}
    dtype = TensorProto.FLOAT if value is None else helper.np_dtype_to_tensor_dtype(value.dtype)
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["sizes"], ["filled"], **settings),
            helper.make_node("Identity", ["filled"], ["y"]),
        ],
        "filled",
        [],
        [helper.make_tensor_value_info("y", dtype, [2, 3])],
        [numpy_helper.from_array(np.array([2, 3], np.int64), "sizes")],
    )
    found = folded(graph)
    assert [node.op_type for node in found.node] == ["Identity"]
    stored = {entry.name: numpy_helper.to_array(entry) for entry in found.initializer}
    expected = np.full((2, 3), np.float32(0) if value is None else value[0])
    assert stored["filled"].dtype == expected.dtype
    np.testing.assert_array_equal(stored["filled"], expected)
