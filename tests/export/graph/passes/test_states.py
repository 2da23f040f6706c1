"""First states of zeros are left out, others stay."""

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from saq_qat_export.graph.passes.states import drop_zero_states

HIDDEN, INPUT = 3, 2


def model(first: float, *, filled: bool) -> Any:
    """A GRU over sequences (5, N, 2) whose first state is made for the batch by Expand or ConstantOfShape."""
    generator = np.random.default_rng(0)
    weights = {
        "W": generator.normal(size=(1, 3 * HIDDEN, INPUT)),
        "R": generator.normal(size=(1, 3 * HIDDEN, HIDDEN)),
        "zero": np.array(first),
    }
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    constants += [
        numpy_helper.from_array(np.array([size], np.int64), name)
        for name, size in (("one", 1), ("hidden", HIDDEN))
    ]
    filling = {"value": numpy_helper.from_array(np.array([first], np.float32))}
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], start=1, end=2),
        helper.make_node("Concat", ["one", "batch", "hidden"], ["sizes"], axis=0),
        helper.make_node("ConstantOfShape", ["sizes"], ["made"], **filling)
        if filled
        else helper.make_node("Expand", ["zero", "sizes"], ["made"]),
        helper.make_node("GRU", ["x", "W", "R", "", "", "made"], ["y"], hidden_size=HIDDEN),
    ]
    graph = helper.make_graph(
        nodes, "states", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, "N", INPUT])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 1, "N", HIDDEN])], constants,
    )  # fmt: skip  # one value a line is a page
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def computed(proto: Any) -> Any:
    x = np.random.default_rng(1).normal(size=(5, 2, INPUT)).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("filled", [True, False])
@pytest.mark.parametrize("first", [0.0, 0.5])
def test_zeros_go_and_the_numbers_stay(first: float, filled: bool) -> None:
    before = model(first, filled=filled)
    changed = ir.from_proto(before)
    drop_zero_states(changed)
    states = [len(node.inputs) > 5 and node.inputs[5] is not None for node in changed.graph]
    assert any(states) == bool(first)
    np.testing.assert_array_equal(computed(ir.to_proto(changed)), computed(before))
