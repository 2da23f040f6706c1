"""Weights of recurrent layers, stored as ONNX stores them, compute what torch computes."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from saq_qat_export.proof.numbers.recurrent import stored_weights

HIDDEN = 3


def computed(kind: str, stored: dict[str, np.ndarray], x: np.ndarray, directions: int) -> np.ndarray:
    """Every step's state (steps, directions, N, hidden), of a first layer in ONNX."""
    names = ["x", *(name for name in ("W_l0", "R_l0", "B_l0") if name in stored)]
    settings: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "direction": "bidirectional" if directions == 2 else "forward",
    }
    node = helper.make_node(kind, names, ["y"], **settings)
    if kind == "GRU":
        node.attribute.append(helper.make_attribute("linear_before_reset", 1))
    graph = helper.make_graph(
        [node], "layer", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["S", "D", "N", "H"])],
        [numpy_helper.from_array(stored[name], name) for name in names[1:]],
    )  # fmt: skip  # one value a line is a page
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    return np.asarray(found)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@torch.no_grad()
def test_onnx_computes_with_them_what_torch_does(
    kind: type[nn.LSTM] | type[nn.GRU], bidirectional: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = kind(4, HIDDEN, bidirectional=bidirectional, bias=bias)
    stored = dict(stored_weights(kind.__name__, {name: p.numpy() for name, p in layer.named_parameters()}))
    x = torch.randn(5, 2, 4)
    found = computed(kind.__name__, stored, x.numpy(), 1 + bidirectional)
    expected = layer(x)[0].reshape(5, 2, 1 + bidirectional, HIDDEN).transpose(1, 2)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_every_layer_is_stored_and_each_gate_once() -> None:
    layer = nn.LSTM(4, HIDDEN, 2)
    given = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    stored = dict(stored_weights("LSTM", given))
    assert sorted(stored) == ["B_l0", "B_l1", "R_l0", "R_l1", "W_l0", "W_l1"]
    for own, name in (("W", "weight_ih"), ("R", "weight_hh")):
        assert sorted(stored[f"{own}_l1"].reshape(-1)) == sorted(given[f"{name}_l1"].reshape(-1))
