"""Shapes beside those that ONNX's own inference gives for the same node."""

from math import prod
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from saq_qat_runtime.bundle.onnx_call import BATCH
from saq_qat_runtime.bundle.onnx_file import parse_graph
from saq_qat_runtime.bundle.onnx_limits import sizes_of

Shape = tuple[int, ...]
X = (2, 6, 9, 8)
WINDOWS: tuple[dict[str, Any], ...] = (
    {},
    {"pads": [1, 0, 2, 1]},
    {"strides": [2, 3], "pads": [1, 1, 1, 1]},
    {"dilations": [2, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "VALID"},
)


def f(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)


def i(*numbers: int) -> np.ndarray[Any, Any]:
    return np.array(numbers, np.int64)


CASES: list[tuple[str, Shape, list[Any], dict[str, Any], int]] = [
    *(("Conv", X, [f(4, 6, 3, 2)], attributes, 1) for attributes in WINDOWS),
    ("Conv", X, [f(6, 2, 3, 3)], {"group": 3}, 1),
    *(("MaxPool", X, [], {"kernel_shape": [3, 2], **attributes}, 2) for attributes in WINDOWS),
    ("MaxPool", X, [], {"kernel_shape": [2, 3], "strides": [2, 3], "ceil_mode": 1}, 1),
    ("AveragePool", X, [], {"kernel_shape": [2, 2], "count_include_pad": 1}, 1),
    ("ConvTranspose", X, [f(6, 4, 3, 2)], {"strides": [2, 3], "output_padding": [1, 0]}, 1),
    ("ConvTranspose", X, [f(6, 2, 3, 2)], {"group": 2}, 1),
    ("ConvTranspose", X, [f(6, 4, 3, 2)], {"strides": [2, 3], "pads": [1, 0, 2, 1]}, 1),
    (
        "ConvTranspose",
        X,
        [f(6, 1, 3, 3)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1], "auto_pad": "NOTSET"},
        1,
    ),
    ("GlobalAveragePool", X, [], {}, 1),
    ("Gemm", (5, 7), [f(7, 3)], {}, 1),
    ("Gemm", (7, 5), [f(3, 7)], {"transA": 1, "transB": 1}, 1),
    ("MatMul", X, [f(8, 5)], {}, 1),
    ("MatMul", X, [f(6, 8, 5)], {}, 1),
    ("MatMul", X, [f(8)], {}, 1),
    ("MatMul", (8,), [f(8, 5)], {}, 1),
    ("Einsum", X, [f(9, 5, 8)], {"equation": "bchw,hkw->bchk"}, 1),
    ("Einsum", X, [f(8, 5)], {"equation": "...w, wk -> ...k"}, 1),
    ("Einsum", X, [f(6, 9, 8)], {"equation": "b...,..."}, 1),
    ("Einsum", X, [f(2, 6, 8, 7)], {"equation": "bchw,bcwk"}, 1),
    ("Einsum", X, [f(2, 6, 9, 8), f(5)], {"equation": "bchw,bchw,k->k"}, 1),
    ("Einsum", (5, 5), [], {"equation": "ii->i"}, 1),
    ("Add", X, [f(9, 1)], {}, 1),
    ("Where", X, [], {}, 0),
    ("Equal", X, [f(1, 6, 1, 1)], {}, 1),
    ("ReduceMean", X, [i(2, 3)], {}, 1),
    ("ReduceMean", X, [i(-1)], {"keepdims": 0}, 1),
    ("ReduceSum", X, [], {"keepdims": 0}, 1),
    ("ReduceSum", X, [i()], {"noop_with_empty_axes": 1}, 1),
    ("ArgMax", X, [], {"axis": 1, "keepdims": 0}, 1),
    ("Reshape", X, [i(2, -1)], {}, 1),
    ("Reshape", X, [i(0, 3, -1, 0)], {}, 1),
    ("Reshape", X, [i(2, 6, 72)], {"allowzero": 1}, 1),
    ("Flatten", X, [], {}, 1),
    ("Flatten", X, [], {"axis": -1}, 1),
    ("Flatten", X, [], {"axis": 0}, 1),
    ("Squeeze", (2, 1, 3, 1), [], {}, 1),
    ("Squeeze", (2, 1, 3, 1), [i(-1)], {}, 1),
    ("Unsqueeze", (2, 3), [i(0, -1)], {}, 1),
    ("Transpose", X, [], {}, 1),
    ("Transpose", X, [], {"perm": [0, 2, 3, 1]}, 1),
    ("Concat", X, [f(2, 1, 9, 8)], {"axis": 1}, 1),
    ("Split", X, [], {"axis": 1, "num_outputs": 3}, 3),
    ("Split", X, [i(1, 5)], {"axis": 1}, 2),
    ("Slice", X, [i(1), i(7), i(2), i(2)], {}, 1),
    ("Slice", X, [i(-3, 0), i(1 << 40, -2), i(-1, 2)], {}, 1),
    ("Slice", X, [i(8), i(-100), i(2), i(-3)], {}, 1),
    ("Gather", X, [i(0, 3)], {"axis": 1}, 1),
    ("Gather", X, [np.int64(0)], {}, 1),
    ("GatherElements", X, [np.zeros((2, 6, 1, 8), np.int64)], {"axis": 2}, 1),
    ("GatherND", X, [np.zeros((3, 2), np.int64)], {}, 1),
    ("GatherND", X, [np.zeros((2, 3, 1), np.int64)], {"batch_dims": 1}, 1),
    ("TopK", X, [i(3)], {"axis": 1}, 2),
    ("Pad", X, [i(0, 0, 1, 2, 0, 0, 3, 4)], {}, 1),
    ("Pad", X, [i(-1, 2), None, i(3)], {"mode": "reflect"}, 1),
    ("Resize", X, [None, np.array([1, 1, 2, 1.5], np.float32)], {}, 1),
    ("Resize", X, [None, None, i(2, 6, 18, 3)], {}, 1),
    ("Resize", X, [None, None, i(4, 5)], {"axes": [2, 3], "antialias": 1, "mode": "linear"}, 1),
    ("DepthToSpace", (2, 8, 3, 4), [], {"blocksize": 2}, 1),
    ("SpaceToDepth", (2, 3, 6, 4), [], {"blocksize": 2}, 1),
    ("GridSample", X, [f(2, 3, 5, 2)], {}, 1),
    ("Col2Im", (2, 12, 20), [i(5, 6), i(2, 2)], {}, 1),
    ("Shape", X, [], {}, 1),
    ("Shape", X, [], {"start": 1, "end": -1}, 1),
    ("Cast", X, [], {"to": TensorProto.INT64}, 1),
    ("CastLike", X, [i(1)], {}, 1),
    ("Atan", X, [], {}, 1),
    ("IsInf", X, [], {}, 1),
    ("QuantizeLinear", X, [np.float32(1), np.uint8(0)], {}, 1),
    ("LayerNormalization", X, [f(8)], {}, 1),
    ("Softmax", X, [], {}, 1),
    ("LSTM", (5, 2, 7), [f(2, 12, 7), f(2, 12, 3)], {"hidden_size": 3, "direction": "bidirectional"}, 3),
    ("GRU", (5, 2, 7), [f(1, 9, 7), f(1, 9, 3)], {"hidden_size": 3}, 2),
]


def one_node(case: tuple[str, Shape, list[Any], dict[str, Any], int]) -> onnx.ModelProto:
    op_type, shape, given, attributes, results = case
    names = [f"c{place}" if value is not None else "" for place, value in enumerate(given)]
    stored = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in zip(names, given, strict=True)
        if name
    ]
    inputs = ["x", *names]
    if op_type == "Where":
        inputs, results = ["x_is_nan", "x", "x"], 1
    node = helper.make_node(op_type, inputs, [f"y{place}" for place in range(results)], **attributes)
    nodes = [helper.make_node("IsNaN", ["x"], ["x_is_nan"]), node] if op_type == "Where" else [node]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    ends = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph(nodes, "one", [x], ends, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[3]}")
def test_a_shape_is_that_of_onnx(case: tuple[str, Shape, list[Any], dict[str, Any], int]) -> None:
    model = one_node(case)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    found = sizes_of(parse_graph(model.SerializeToString()))
    for value in inferred.graph.output:
        expected = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert list(found[value.name].shape) == expected
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        assert found[value.name].width >= dtype.itemsize


def test_the_batch_goes_through_the_arithmetic_of_shapes() -> None:
    """(N, 6, 9, 8) to (2 N, 3, 72), as attention over windows has it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Mul", ["n", "two"], ["windows"]),
        helper.make_node("Concat", ["windows", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
        helper.make_node("Div", ["windows", "two"], ["n_again"]),
        helper.make_node("Concat", ["n_again", "all"], ["back"], axis=0),
        helper.make_node("Reshape", ["y", "back"], ["z"]),
    ]
    stored = {"two": i(2), "rest": i(3, 72), "all": i(-1)}
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *X[1:]])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "batch", [x], [z], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    found = sizes_of(parse_graph(model.SerializeToString()))
    assert found["y"].shape == (2 * BATCH, 3, 72)
    assert found["z"].shape == (BATCH, prod(X[1:]))
