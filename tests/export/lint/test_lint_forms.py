"""Forms in which other tools write quantized models: what is right is left alone, what is wrong is found."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from saq_qat_export.lint import LintSettings, batch_profiles, has_quantization, lint
from tests.export.lint.lint_graphs import Net, rules

SHAPE = (1, 16, 8, 8)


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
