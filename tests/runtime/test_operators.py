"""The table of operators agrees with ONNX's own evaluator, and with what ONNX Runtime does with sums."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from saq_qat_export.bundle.graph_facts import graph_facts
from saq_qat_export.reference.qdq_operators import call
from saq_qat_runtime.operators import (
    BOUNDS,
    CROSSED_BY_ONNXRUNTIME,
    EFFECTS,
    MOVES,
    RESHAPES,
    carried,
)
from tests.export.lint.lint_graphs import Net
from tests.export.onnx_models import session

SHAPE = (2, 4, 4, 4)
SETTINGS: dict[str, tuple[list[list[int]], dict[str, Any]]] = {
    "Concat": ([], {"axis": 1}),
    "DepthToSpace": ([], {"blocksize": 2}),
    "Expand": ([[3, 2, 4, 4, 4]], {}),
    "Flatten": ([], {"axis": 2}),
    "Gather": ([[3, 0]], {"axis": 1}),
    "MaxPool": ([], {"kernel_shape": [2, 2]}),
    "Reshape": ([[2, -1]], {}),
    "Slice": ([[1], [3], [1]], {}),
    "SpaceToDepth": ([], {"blocksize": 2}),
    "Split": ([], {"axis": 1, "num_outputs": 2}),
    "Squeeze": ([], {}),
    "Tile": ([[1, 1, 2, 1]], {}),
    "Transpose": ([], {"perm": [0, 2, 1, 3]}),
    "Unsqueeze": ([[1]], {}),
}


def added(net: Net, op: str, source: str) -> str:
    """The first output of one operator that reads ``source``."""
    others, attributes = SETTINGS.get(op, ([], {}))
    inputs = [net.constant(value, np.int64) for value in others]
    outputs = 2 if op == "Split" else 1
    return net.node(op, *([source] * (2 if op == "Concat" else 1)), *inputs, outputs=outputs, **attributes)


@pytest.mark.parametrize("op", sorted(MOVES))
def test_what_moves_numbers_writes_numbers_of_its_input_alone(op: str) -> None:
    net = Net()
    added(net, op, net.input(SHAPE))
    (node,), values = net.nodes, np.random.default_rng(0).permutation(128).reshape(SHAPE).astype(np.float32)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in net.constants}
    written = call(node, {"image": values, **constants}, {"": net.opset})
    assert all(np.isin(array, values).all() for array in written)
    assert set(carried(op, node.input)) == {"image"}
    if op in RESHAPES or EFFECTS[op] in ("regroups", "passes"):
        assert sorted(written[0].ravel()) == sorted(values.ravel())


@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.parametrize("op", sorted(MOVES - {"Concat", "Split"}))
def test_a_sum_is_called_integer_where_onnx_runtime_makes_it_so(op: str, side: str, tmp_path: Path) -> None:
    net = Net(opset=17)
    value = net.pair(net.input(("N", *SHAPE[1:])), dtype=np.uint8)
    value = added(net, op, value) if side == "before" else value
    value = net.node("Add", value, value)
    value = added(net, op, value) if side == "behind" else value
    model = net.model(net.pair(value, 0.2, dtype=np.uint8))
    session(model, str(tmp_path / "optimized.onnx"))
    kernels = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert ("QLinearAdd" in kernels) == (op in CROSSED_BY_ONNXRUNTIME)
    assert graph_facts(model).float_operations.get("Add", 0) == (op not in CROSSED_BY_ONNXRUNTIME)


def test_a_sum_whose_shape_is_asked_for_is_called_float_as_onnx_runtime_computes_it(tmp_path: Path) -> None:
    net = Net(opset=17)
    value = net.pair(net.input(("N", *SHAPE[1:])), dtype=np.uint8)
    total = net.node("Add", value, value)
    net.node("Shape", total)
    shape, codes = net.nodes[-1].output[0], net.pair(total, 0.2, dtype=np.uint8)
    model = net.model(codes, shape)
    model.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    session(model, str(tmp_path / "optimized.onnx"))
    assert "Add" in {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert graph_facts(model).float_operations == {"Add": 1}


def test_the_subsets_are_parts_of_the_table() -> None:
    assert CROSSED_BY_ONNXRUNTIME | {"Flatten"} > RESHAPES and CROSSED_BY_ONNXRUNTIME < MOVES
    assert MOVES | BOUNDS | {"Pad", "Resize"} == set(EFFECTS)
