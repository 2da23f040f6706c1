"""Forms in which other tools write quantized models: what is right is left alone, what is wrong is found."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from saq_qat_export.lint import LintSettings, batch_profiles, has_quantization, lint
from saq_qat_runtime.engine_record import Profile
from tests.export.lint.lint_graphs import Net

SHAPE = (1, 16, 8, 8)


NO_SETTINGS = LintSettings()


def rules(model: onnx.ModelProto, *levels: str, settings: LintSettings = NO_SETTINGS) -> list[str]:
    """Rules of the findings in their order, those of float32 between the layers left out."""
    wanted = levels or ("error", "warning", "note")
    return [f.rule for f in lint(model, settings) if f.level in wanted and f.rule != "TRT114"]


def resnet_like(net: Net, image: str) -> str:
    """Stem, max pool, a block with a residual sum, pooled head: as our exporter writes them."""
    x = net.node("Relu", net.conv(net.pair(image), channels=3))
    x = net.pair(net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]))
    branch = net.pair(net.node("Clip", net.conv(x), net.constant(0.0), net.constant(3.0)), 0.2)
    total = net.node("Add", net.conv(branch), net.pair(net.conv(x, kernel=1), 0.3))
    codes = net.pair(net.node("Relu", total), 0.15)
    pooled = net.pair(net.node("GlobalAveragePool", codes), 0.05)
    flat = net.node("Flatten", pooled)
    return net.node("Gemm", flat, net.weight(32, 16), net.floats(32), transB=1)


@pytest.mark.parametrize("opset", [13, 17, 19, 21, 24])
def test_a_residual_network_in_our_form_has_one_note(opset: int) -> None:
    net = Net(opset)
    logits = resnet_like(net, net.input(("N", 3, 32, 32)))
    model = net.model(logits)
    assert rules(model, settings=LintSettings(batch_profiles(model, 1, 2, 4))) == ["TRT116"]


def test_a_depthwise_block_in_our_form_has_no_findings() -> None:
    net = Net()
    x = net.pair(net.input(SHAPE))
    wide = net.pair(net.node("Clip", net.conv(x, 16, 64, 1), net.constant(0.0), net.constant(6.0)))
    deep = net.pair(net.node("Clip", net.conv(wide, 64, 64, group=64), net.constant(0.0), net.constant(6.0)))
    assert rules(net.model(net.pair(net.node("Add", net.conv(deep, 64, 16, 1), x)))) == []


def test_float16_between_the_layers_has_no_findings_at_all() -> None:
    net = Net()
    half = np.float16
    x = net.pair(net.input(SHAPE, dtype=TensorProto.FLOAT16), precision=half)
    y = net.node("Conv", x, net.weight(16, 16, 3, 3, precision=half), net.floats(16, dtype=half))
    assert lint(net.model(net.node("Relu", y), dtype=TensorProto.FLOAT16)) == ()


def test_a_float_model_has_no_findings_and_says_so() -> None:
    net = Net()
    model = net.model(net.node("Conv", net.input(SHAPE), net.floats(16, 16, 3, 3)))
    assert lint(model) == ()
    assert not has_quantization(model)
    quantized = Net()
    assert has_quantization(quantized.model(quantized.pair(quantized.input(SHAPE))))


def test_float_weights_with_a_pair_are_as_good_as_stored_codes() -> None:
    net = Net()
    weight = net.pair(net.floats(16, 16, 3, 3), np.full(16, 0.01), axis=0)
    assert rules(net.model(net.node("Conv", net.pair(net.input(SHAPE)), weight))) == []


def test_codes_clipped_between_quantize_and_dequantize_are_a_warning() -> None:
    net = Net()
    codes = net.quantize(net.floats(16, 16, 3, 3), np.full(16, 0.01), axis=0)
    clipped = net.node("Clip", codes, net.constant(-127, np.int8), net.constant(127, np.int8))
    weight = net.dequantize(clipped, np.full(16, 0.01), axis=0)
    few = net.node(
        "Clip", net.quantize(net.input(SHAPE)), net.constant(0, np.int8), net.constant(15, np.int8)
    )
    model = net.model(net.node("Conv", net.dequantize(few), weight))
    assert rules(model) == ["TRT013", "TRT013"]
    assert {f.level for f in lint(model)} == {"warning"}


def test_uint8_without_a_zero_point_is_an_error_once_for_each_pair() -> None:
    net = Net()
    pair = net.dequantize(net.quantize(net.input(SHAPE), zero=None), zero=None)
    assert rules(net.model(net.conv(pair))) == ["TRT002"]


def test_int8_may_be_said_by_output_dtype() -> None:
    net = Net(opset=21)
    codes = net.quantize(net.input(SHAPE), zero=None, output_dtype=TensorProto.INT8)
    assert rules(net.model(net.conv(net.dequantize(codes, zero=None)))) == []


def test_uint8_input_tensors_may_not_be_dequantized() -> None:
    net = Net()
    x = net.input(SHAPE, dtype=TensorProto.UINT8)
    assert rules(net.model(net.conv(net.dequantize(x, dtype=np.uint8)))) == ["TRT002"]


def test_quantize_nodes_of_onnx_runtime_are_read_as_standard_ones() -> None:
    net = Net()
    contributed = "com.microsoft"
    codes = net.constant(np.ones((16, 1, 3, 3)), np.int8)
    weight = net.dequantize(codes, np.full(16, 0.01), axis=0, domain=contributed)
    model = net.model(net.node("Conv", net.pair(net.input(SHAPE), domain=contributed), weight, group=16))
    assert rules(model) == ["TRT019"] * 3
    assert {f.level for f in lint(model) if f.rule == "TRT019"} == {"warning"}
    assert all(node.domain == contributed for node in model.graph.node if node.op_type != "Conv")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_the_channel_axis_of_a_gemm_follows_its_layout(transposed: bool, axis: int) -> None:
    net = Net()
    shape = (32, 64) if transposed else (64, 32)
    weight = net.weight(*shape, axis=axis)
    model = net.model(net.node("Gemm", net.pair(net.input((4, 64))), weight, transB=int(transposed)))
    right = axis % 2 == (0 if transposed else 1)
    assert rules(model) == ([] if right else ["TRT008"])


@pytest.mark.parametrize(("axis", "expected"), [(0, []), (1, ["TRT008"])])
def test_the_channel_axis_is_followed_through_transpose(axis: int, expected: list[str]) -> None:
    net = Net()
    weight = net.node("Transpose", net.weight(32, 64, axis=axis), perm=[1, 0])
    assert rules(net.model(net.node("MatMul", net.pair(net.input((4, 64))), weight))) == expected


def test_the_channel_axis_is_followed_through_reshape() -> None:
    net = Net()
    flat = net.weight(16, 144)
    weight = net.node("Reshape", flat, net.constant([16, 16, 3, 3], np.int64))
    assert rules(net.model(net.node("Conv", net.pair(net.input(SHAPE)), weight))) == []


def test_the_default_axis_of_a_convolution_weight_is_wrong() -> None:
    net = Net()
    weight = net.dequantize(net.constant(np.ones((16, 16, 3, 3)), np.int8), np.full(16, 0.01))
    assert rules(net.model(net.node("Conv", net.pair(net.input(SHAPE)), weight))) == ["TRT008"]


def test_one_scale_for_all_weights_is_right_in_every_shape() -> None:
    for scale in (0.01, [0.01]):
        net = Net()
        weight = net.dequantize(net.constant(np.ones((16, 16, 3, 3)), np.int8), scale)
        assert rules(net.model(net.node("Conv", net.pair(net.input(SHAPE)), weight))) == []


def test_weights_may_be_shared_and_stand_on_the_left() -> None:
    net = Net()
    weight = net.weight(32, 16, axis=0)
    first = net.node("MatMul", weight, net.pair(net.input((16, 64), "a")))
    second = net.node("MatMul", weight, net.pair(net.input((16, 64), "b"), 0.2))
    assert rules(net.model(first, second)) == []


def test_constant_nodes_count_as_initializers() -> None:
    net = Net()
    weight = net.node("Constant", value=onnx.numpy_helper.from_array(np.ones((16, 16, 3, 3), np.int8)))
    scales = net.node("Constant", value_floats=[0.01] * 16)
    scale, zero = net.node("Constant", value_float=0.1), net.node("Identity", net.constant(0, np.int8))
    data = net.pair(net.input(SHAPE), scale=scale, zero=zero)
    weight = net.dequantize(weight, scale=scales, zero=None, axis=0)
    assert rules(net.model(net.node("Conv", data, weight))) == []


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
    assert (without.rule, without.where) == ("TRT017", "image") and "--batch" in without.remedy
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
