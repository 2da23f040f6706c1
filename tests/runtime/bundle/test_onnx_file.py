from collections import Counter
from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from saq_qat_runtime.bundle.onnx_file import summarize, with_outputs
from saq_qat_runtime.errors import ModelError
from saq_qat_runtime.kernels import FLOAT_KERNELS, INTEGER_KERNELS, count_kernels
from tests.runtime.networks import constant, float_network, model_of, quantized_network


@pytest.mark.parametrize("model", [quantized_network(), float_network()], ids=["quantized", "float"])
def test_counts_the_operators_that_onnx_counts(model: onnx.ModelProto) -> None:
    summary = summarize(model.SerializeToString())
    assert summary.operators == Counter(node.op_type for node in model.graph.node)
    assert not summary.external_data
    assert not summary.functions


def branching_model(inner: onnx.TensorProto) -> onnx.ModelProto:
    """An If whose branch holds a constant node with `inner` as its value."""
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["out"], value=inner), helper.make_node("Relu", ["out"], ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    node = helper.make_node("If", ["condition"], ["logits"], then_branch=branch, else_branch=branch)
    return model_of([node], [constant("condition", np.array(True))])


def external(name: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    return tensor


def test_sees_operators_and_weights_of_subgraphs() -> None:
    plain = summarize(branching_model(constant("c", np.zeros(1, np.float32))).SerializeToString())
    assert plain.operators == {"Constant": 2, "If": 1, "Relu": 2}
    assert not plain.external_data
    assert summarize(branching_model(external("c")).SerializeToString()).external_data


def test_sees_weights_in_other_files() -> None:
    model = float_network()
    model.graph.initializer.append(external("w9"))
    assert summarize(model.SerializeToString()).external_data


def test_sees_functions() -> None:
    model = float_network()
    model.functions.add(name="f", domain="own")
    assert summarize(model.SerializeToString()).functions


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b'{"graph": 1}', b"\x00" * 64, b"\xff" * 64, b"PK\x03\x04" + b"x" * 64, b"\x3a\xff"],
)
def test_refuses_what_is_no_model(content: bytes) -> None:
    with pytest.raises(ModelError):
        summarize(content)


@given(st.data())
def test_damage_raises_nothing_but_model_errors(data: st.DataObject) -> None:
    content = bytearray(quantized_network().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        summarize(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except ModelError:
        return


def test_labels_say_how_much_is_integer() -> None:
    assert not INTEGER_KERNELS & FLOAT_KERNELS
    graphs = [{"Conv": 2, "Relu": 9}, {"Conv": 1, "QLinearConv": 1}, {"QLinearConv": 2, "QLinearAdd": 4}]
    labels = [count_kernels(graph).label.split(" (")[0] for graph in graphs]
    assert labels == ["float", "partly integer", "integer"]
    assert all(
        count_kernels(first).integer < count_kernels(second).integer for first, second in pairwise(graphs)
    )
    assert count_kernels({}).label.startswith("float (0/0")


@pytest.mark.parametrize("names", [[], ["x0_codes"], ["x1_codes", "x2_codes", "n" * 300]])
def test_further_outputs_are_those_that_onnx_reads_and_nothing_else_changes(names: list[str]) -> None:
    model = quantized_network()
    model.doc_string, model.model_version = "as it was", 1 << 40
    watched = onnx.load_from_string(with_outputs(model.SerializeToString(), names))
    assert [output.name for output in watched.graph.output] == ["logits", *names]
    del watched.graph.output[1:]
    assert watched == model


def test_further_outputs_of_what_is_no_model_are_refused() -> None:
    with pytest.raises(ModelError, match="not an ONNX model"):
        with_outputs(b"", ["x0_codes"])
