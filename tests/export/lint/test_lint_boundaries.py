"""Where the line runs within a rule: what it finds, at which level, and what it leaves alone."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from saq_qat_export.lint import LintSettings, batch_profiles, has_quantization, lint
from saq_qat_runtime.tensorrt.engine_record import Profile
from tests.export.lint.lint_graphs import Net, rules

SHAPE = (1, 16, 8, 8)


def test_a_computed_scale_is_judged_by_its_value() -> None:
    net = Net()
    scale = net.node("Sub", net.constant(1.0), net.constant(1.0))
    assert rules(net.model(net.conv(net.pair(net.input(SHAPE), scale=scale)))) == ["TRT005"]


@pytest.mark.parametrize("scale", [np.inf, np.nan, -0.1, 1e-39])
def test_unusable_scales(scale: float) -> None:
    net = Net()
    assert rules(net.model(net.conv(net.pair(net.input(SHAPE), scale=scale)))) == ["TRT005"]


def test_a_denormal_float16_scale_is_unusable() -> None:
    net = Net()
    x = net.pair(net.input(SHAPE, dtype=TensorProto.FLOAT16), scale=3e-5, precision=np.float16)
    y = net.node("Conv", x, net.weight(16, 16, 3, 3, precision=np.float16))
    assert rules(net.model(y, dtype=TensorProto.FLOAT16)) == ["TRT005"]


def test_an_activation_between_dequantize_and_convolution_makes_it_float() -> None:
    net = Net()
    model = net.model(net.conv(net.node("Relu", net.pair(net.input(SHAPE)))))
    assert rules(model) == ["TRT009"]
    assert "comes from Relu" in lint(model)[-1].message


@pytest.mark.parametrize("operator", ["MaxPool", "Dropout", "Identity"])
def test_what_only_moves_numbers_may_stand_before_a_layer(operator: str) -> None:
    net = Net()
    options: dict[str, Any] = {"kernel_shape": [2, 2]} if operator == "MaxPool" else {}
    assert rules(net.model(net.conv(net.node(operator, net.pair(net.input(SHAPE)), **options)))) == []


def test_int8_weights_with_float_data_are_a_warning_for_products_alone() -> None:
    net = Net()
    model = net.model(net.node("MatMul", net.input((4, 64)), net.weight(64, 32, axis=1)))
    assert [(f.rule, f.level) for f in lint(model)] == [("TRT009", "warning")]


def test_weights_in_blocks_of_four_bits_are_for_products() -> None:
    net = Net(opset=21)
    codes = net.constant(np.ones((16, 128, 1, 1)), ml_dtypes.int4)
    weight = net.dequantize(codes, np.full((16, 2, 1, 1), 0.01), zero=None, axis=1, block_size=64)
    model = net.model(net.node("Conv", net.pair(net.input((1, 128, 8, 8))), weight))
    assert rules(model, "error") == ["TRT014"]


@pytest.mark.parametrize(("opset", "expected"), [(9, []), (8, ["TRT001"]), (26, ["TRT001"])])
def test_the_opset_of_a_float_model(opset: int, expected: list[str]) -> None:
    net = Net(opset)
    assert rules(net.model(net.node("Conv", net.input(SHAPE), net.floats(16, 16, 3, 3)))) == expected


def test_old_opsets_have_no_scales_per_channel() -> None:
    net = Net(opset=12)
    weight = net.dequantize(net.constant(np.ones((16, 16, 3, 3)), np.int8), 0.01)
    model = net.model(net.node("Conv", net.pair(net.input(SHAPE)), weight))
    assert [(f.rule, f.level) for f in lint(model) if f.rule == "TRT001"] == [("TRT001", "warning")]
    wide = Net(opset=12)
    assert "TRT001" in rules(wide.model(wide.conv(wide.pair(wide.input(SHAPE)))), "error")


def test_both_branches_of_an_if_are_judged() -> None:
    def branch(scale: float) -> onnx.GraphProto:
        inner = Net()
        inner.constants.append(onnx.numpy_helper.from_array(np.array(scale, np.float32), "scale"))
        return inner.model(inner.conv(inner.pair("image", scale="scale"))).graph

    net = Net()
    condition = net.input((), "condition", TensorProto.BOOL)
    net.input(SHAPE)
    model = net.model(net.node("If", condition, then_branch=branch(0.1), else_branch=branch(-1.0)))
    assert rules(model) == ["TRT005"]


def test_local_functions_are_judged_where_they_are_called() -> None:
    net = Net()
    pair = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"]),
    ]
    opsets = [helper.make_opsetid("", 19)]
    names = ["x", "scale", "zero"]
    net.functions.append(helper.make_function("mine", "Pair", names, ["y"], pair, opsets))
    x = net.node("Pair", net.input(SHAPE), net.constant([0.1]), net.constant([0], np.int8), domain="mine")
    model = net.model(net.conv(x))
    assert rules(model) == ["TRT006"]
    assert has_quantization(model)


def test_node_names_must_differ_and_may_be_missing() -> None:
    net = Net()
    model = net.model(net.conv(net.pair(net.input(SHAPE))))
    for node in model.graph.node:
        node.name = ""
    assert rules(model) == []
    for node in model.graph.node:
        node.name = "same"
    assert rules(model) == ["TRT019"] * 3


def test_operators_that_need_plugins_are_told_from_those_that_cannot_run() -> None:
    net = Net()
    x = net.input(SHAPE)
    gelu = net.node("FastGelu", x, domain="com.microsoft")
    own = net.node("MyOperator", gelu, domain="com.example")
    model = net.model(net.node("Unique", net.node("Nonsense", own)))
    assert [(f.rule, f.level) for f in lint(model)] == [
        ("TRT019", "error"),
        ("TRT019", "warning"),
        ("TRT019", "error"),
        ("TRT019", "error"),
    ]


def test_profiles_must_fit_the_inputs_they_name() -> None:
    net = Net()
    x = net.input(("N", 16, 8, 8))
    model = net.model(net.conv(net.pair(x)))
    (without,) = lint(model)[:1]
    assert (without.rule, without.where) == ("TRT017", "image") and "--batch" in without.fix
    fitting = batch_profiles(model, 1, 4, 8)
    assert fitting == (Profile("image", (1, 16, 8, 8), (4, 16, 8, 8), (8, 16, 8, 8)),)
    assert rules(model, settings=LintSettings(fitting)) == []
    for wrong in ((1, 16, 8, 9), (1, 16, 8)):
        assert rules(model, settings=LintSettings((Profile("image", wrong, wrong, wrong),))) == ["TRT017"]
    stranger = Profile("picture", (1,), (1,), (1,))
    assert rules(model, settings=LintSettings((*fitting, stranger))) == ["TRT017"]


def test_only_inputs_with_a_dynamic_batch_alone_get_batch_profiles() -> None:
    net = Net()
    images = (
        net.input(("N", 16, 8, 8), "a"),
        net.input((1, 16, 8, 8), "b"),
        net.input(("N", 16, "H", 8), "c"),
    )
    model = net.model(*(net.node("Relu", image) for image in images))
    assert [profile.input for profile in batch_profiles(model, 1, 2, 4)] == ["a"]


def test_initializers_among_the_inputs_are_constants() -> None:
    net = Net(opset=13)
    model = net.model(net.conv(net.pair(net.input(SHAPE))))
    for tensor in net.constants:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert rules(model) == []


def test_findings_come_in_graph_order_and_then_by_rule() -> None:
    net = Net()
    first = net.pair(net.input(SHAPE), scale=[-0.1])
    model = net.model(net.conv(net.pair(net.conv(first), scale=[-0.1])))
    found = lint(model)
    assert [f.rule for f in found] == ["TRT114", "TRT005", "TRT006", "TRT005", "TRT006"]
    assert found[1].where == found[2].where != found[3].where == found[4].where
    assert found == lint(model)


def test_attention_with_one_quantized_product_is_found() -> None:
    net = Net()
    q, k, v = (net.pair(net.input((1, 4, 16, 32), name)) for name in "qkv")
    scores = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 1, 3, 2]))
    model = net.model(net.node("MatMul", net.node("Softmax", scores, axis=-1), v))
    assert rules(model) == ["TRT111"]


def test_a_layer_that_reads_two_scales_is_an_error() -> None:
    net = Net()
    x = net.input(SHAPE)
    joined = net.node("Concat", net.pair(x, 0.1), net.pair(net.node("Relu", x), 0.2), axis=1)
    assert rules(net.model(net.conv(joined, channels=32)), "error") == ["TRT107"]


def test_a_small_head_is_a_note_and_a_small_layer_a_warning() -> None:
    net = Net()
    hidden = net.node("Gemm", net.pair(net.input((4, 64))), net.weight(10, 64), transB=1)
    logits = net.node("Gemm", net.pair(hidden), net.weight(10, 10), transB=1)
    found = [f for f in lint(net.model(logits)) if f.rule == "TRT109"]
    assert [f.level for f in found] == ["warning", "note"]


def test_scalar_constants_quantized_in_the_graph_are_a_warning() -> None:
    net = Net()
    pair = net.pair(net.constant(1.0))
    model = net.model(net.node("Add", net.conv(net.pair(net.input(SHAPE))), pair))
    assert [(f.rule, f.level) for f in lint(model)][-1] == ("TRT015", "warning")


def test_codes_as_an_input_of_the_graph_are_left_alone() -> None:
    net = Net()
    x = net.input(SHAPE, dtype=TensorProto.INT8)
    assert rules(net.model(net.conv(net.dequantize(x)))) == []
