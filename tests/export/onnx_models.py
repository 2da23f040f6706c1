"""ONNX models of one operator between QuantizeLinear and DequantizeLinear, and sessions that run them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]

_DTYPES = {"float32": TensorProto.FLOAT, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}


def session(model: onnx.ModelProto | bytes, path: str | None = None) -> onnxruntime.InferenceSession:
    """ONNX Runtime on the CPU; the optimized graph is written to ``path``."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if path is not None:
        options.optimized_model_filepath = path
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_nodes(
    nodes: Sequence[onnx.NodeProto], feeds: Mapping[str, Array], constants: Mapping[str, Any]
) -> Array:
    """The value ``y`` that ONNX Runtime computes for a graph of ``nodes``."""
    inputs = [
        helper.make_tensor_value_info(name, _DTYPES[str(array.dtype)], array.shape)
        for name, array in feeds.items()
    ]
    codes = nodes[-1].op_type == "QuantizeLinear"
    written = _DTYPES[str(np.asarray(constants[nodes[-1].input[2]]).dtype) if codes else "float32"]
    graph = helper.make_graph(
        list(nodes),
        "one_operator",
        inputs,
        [helper.make_tensor_value_info("y", written, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (result,) = session(model).run(["y"], dict(feeds))
    return np.asarray(result)


def dequantize(name: str) -> onnx.NodeProto:
    """``name`` times ``name_scale`` as ``name_value``."""
    return helper.make_node(
        "DequantizeLinear", [name, f"{name}_scale", f"{name}_zero_point"], [f"{name}_value"]
    )


def quantize(source: str) -> onnx.NodeProto:
    return helper.make_node("QuantizeLinear", [source, "y_scale", "y_zero_point"], ["y"])


def weighted(op: str, **attributes: Any) -> list[onnx.NodeProto]:
    """Conv or Gemm of x, int8 weights and int32 bias; its float result is ``sum``."""
    return [
        dequantize("x"),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero_point"], ["w_value"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b_scale"], ["b_value"], axis=0),
        helper.make_node(op, ["x_value", "w_value", "b_value"], ["sum"], **attributes),
    ]
