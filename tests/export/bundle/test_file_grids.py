"""Grids as a file states them: scale, zero point, bounds, offset and pooling of every tensor of codes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from saq_qat_export.bundle.file_grids import TensorGrid, file_grids
from saq_qat_export.bundle.records import tensor_records
from tests.export.networks import small

Nodes = list[onnx.NodeProto]


def model(nodes: Nodes, constants: Mapping[str, Any]) -> bytes:
    """Images "x" (N, 2, 4, 4) to "y"."""
    graph = helper.make_graph(
        nodes,
        "grids",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()
    return made


def quantize(x: str, codes: str, zero: str = "zero", scale: str = "scale") -> onnx.NodeProto:
    return helper.make_node("QuantizeLinear", [x, scale, zero], [codes])


def dequantize(codes: str, y: str, zero: str = "zero", scale: str = "scale") -> onnx.NodeProto:
    return helper.make_node("DequantizeLinear", [codes, scale, zero], [y])


SCALE = {"scale": np.float32(0.25), "zero": np.uint8(0)}


def test_grids_of_an_exported_network_are_those_of_its_deploy_view() -> None:
    found = small()
    grids = file_grids(found.graph.content)
    records = {record.code_tensor: record for record in tensor_records(found.view)}
    assert grids.tensors.keys() == records.keys() and len(records) > 3
    for name, grid in grids.tensors.items():
        record = records[name]
        assert (np.float32(grid.scale), grid.zero_point, grid.dtype) == (
            np.float32(record.scale), record.zero_point, record.dtype,
        )  # fmt: skip  # one value a line is a page
        assert (grid.minimum, grid.maximum) == (record.code_min, record.code_max)
    assert {"stem.0.weight", "head.fc.weight"} <= grids.weight_scales.keys() | {"head.fc.weight"}
    assert grids.inputs == {"image": (0, 3, 16, 16)} or len(grids.inputs) == 1


def test_a_clip_of_codes_bounds_and_names_them() -> None:
    nodes = [
        quantize("x", "unclipped"),
        helper.make_node("Clip", ["unclipped", "low", "high"], ["codes"]),
        dequantize("codes", "y"),
    ]
    found = file_grids(model(nodes, SCALE | {"low": np.uint8(0), "high": np.uint8(15)}))
    assert found.tensors == {"codes": TensorGrid(0.25, 0, "uint8", 0, 15)}
    assert (found.inputs, found.outputs) == ({"x": (0, 2, 4, 4)}, {"y": (0, 2, 4, 4)})


def test_a_clip_of_floats_at_codes_values_bounds_them() -> None:
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["bounded"]),
        quantize("bounded", "codes"),
        dequantize("codes", "y"),
    ]
    signed = {"scale": np.float32(0.25), "zero": np.int8(0)}
    bounds = {"low": np.float32(-1.75), "high": np.float32(1.75)}
    assert file_grids(model(nodes, signed | bounds)).tensors["codes"] == TensorGrid(0.25, 0, "int8", -7, 7)
    of_the_network = bounds | {"high": np.float32(1.8)}
    assert file_grids(model(nodes, signed | of_the_network)).tensors["codes"].maximum is None


def test_what_is_subtracted_before_is_the_offset() -> None:
    nodes = [
        helper.make_node("Sub", ["x", "beta"], ["shifted"]),
        quantize("shifted", "codes"),
        dequantize("codes", "y"),
    ]
    found = file_grids(model(nodes, SCALE | {"beta": np.float32(-0.5)}))
    assert found.tensors["codes"].offset == -0.5


def pooled(scale: str) -> Nodes:
    return [
        quantize("x", "unclipped"),
        helper.make_node("Clip", ["unclipped", "low", "high"], ["codes"]),
        dequantize("codes", "values"),
        helper.make_node("MaxPool", ["values"], ["largest"], kernel_shape=[1, 1]),
        quantize("largest", "pooled", scale=scale),
        dequantize("pooled", "y", scale=scale),
    ]


def test_maxima_of_codes_have_their_bounds_on_the_same_grid_alone() -> None:
    constants = SCALE | {"low": np.uint8(0), "high": np.uint8(15), "other": np.float32(0.5)}
    same, other = (
        file_grids(model(pooled(scale), constants)).tensors["pooled"] for scale in ("scale", "other")
    )
    assert (same.pooled, same.minimum, same.maximum) == ("codes", 0, 15)
    assert (other.pooled, other.minimum, other.maximum) == (None, 0, 255)


def test_codes_that_are_only_stored_again_are_one_tensor() -> None:
    nodes = [
        quantize("x", "first", zero="signed"),
        dequantize("first", "between", zero="signed"),
        quantize("between", "codes"),
        dequantize("codes", "y"),
    ]
    found = file_grids(model(nodes, SCALE | {"signed": np.int8(0)}))
    assert list(found.tensors) == ["codes"]


def test_layers_that_share_codes_have_a_scale_each() -> None:
    constants = SCALE | {"w": np.ones((2, 2, 1, 1), np.int8), "a": np.ones(2, "f"), "b": np.full(2, 2, "f")}
    nodes = [
        quantize("x", "codes"),
        dequantize("codes", "values"),
        helper.make_node("DequantizeLinear", ["w", "a"], ["wa"], axis=0),
        helper.make_node("DequantizeLinear", ["w", "b"], ["wb"], axis=0),
        helper.make_node("Conv", ["values", "wa"], ["between"]),
        helper.make_node("Conv", ["between", "wb"], ["y"]),
    ]
    first, second = file_grids(model(nodes, constants)).weight_scales["w"]
    assert (list(first), list(second)) == ([1, 1], [2, 2])
