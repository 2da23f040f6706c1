"""Layers with float weights between codes stay what they are in ONNX Runtime."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from saq_qat_export.graph.passes.float_layers import keep_layers_in_float
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(-1, 1, (2, 3, 5, 5)).astype(np.float32)


def network(op: str) -> onnx.ModelProto:
    """Codes, a layer with float weights of very different sizes, codes."""
    weight = (
        RANDOM.normal(size=(3, 3, 2, 2)).astype(np.float32) * np.logspace(-3, 0, 12).reshape(3, 1, 2, 2)[:1]
    )
    constants = {
        "w": weight.astype(np.float32),
        "s": np.float32(0.01),
        "z": np.uint8(128),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node(op, ["d", "w"] if op != "Softmax" else ["d"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "s", "z"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 5, 5])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", None, None, None])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip  # one value a line is a page
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def codes_off(model: onnx.ModelProto) -> int:
    """Codes of ONNX Runtime that lie more than a rounding tie from the reference."""
    (exact,) = ReferenceEvaluator(model).run(None, {"image": IMAGES})
    found = OnnxRuntimeBackend(model.SerializeToString()).run({"image": IMAGES})["logits"]
    return int((np.abs(found - exact) > 0.005).sum())


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Softmax"])
def test_the_engine_makes_no_integers_of_its_own(op: str) -> None:
    model = network(op)
    held = ir.from_proto(model)
    keep_layers_in_float(held)
    assert [node.op_type for node in held.graph].count("Max") == 1
    assert codes_off(ir.to_proto(held)) == 0
    assert op != "Conv" or codes_off(model) > 0, "the pass is no longer needed"


def test_layers_that_read_floats_are_left_alone() -> None:
    model = network("Conv")
    model.graph.node[2].input[0] = "image"
    held = ir.from_proto(model)
    keep_layers_in_float(held)
    assert "Max" not in [node.op_type for node in held.graph]
