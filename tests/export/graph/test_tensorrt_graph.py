"""The graph for TensorRT: explicit quantization in the one form that keeps every layer in int8."""

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import fx

from saq_qat.quant.deploy.integer_modules import IntegerLayer
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.recipe.schema import Deploy
from saq_qat_export.graph.onnx_graph import export_tensorrt
from saq_qat_export.graph.patterns.tensorrt import OPSET
from tests.export.networks import SIDE, Small, built_in, policy, quantized, small, smooth_images


@cache
def graph_of(weight_bits: int = 4, activation_bits: int = 4) -> onnx.GraphProto:
    content = export_tensorrt(small(weight_bits, activation_bits).view, (3, SIDE, SIDE)).content
    return onnx.load_from_string(content).graph


def constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def nodes(graph: onnx.GraphProto, *operators: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type in operators]


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_are_int8_with_zero_point_zero_and_scales_of_rank_zero(bits: int) -> None:
    graph = graph_of(bits, bits)
    values = constants(graph)
    for node in nodes(graph, "QuantizeLinear"):
        scale, zero_point = values[node.input[1]], values[node.input[2]]
        assert scale.dtype == np.float32 and scale.shape == ()
        assert zero_point.dtype == np.int8 and int(zero_point) == 0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_nothing_stands_between_quantize_and_dequantize(bits: int) -> None:
    graph = graph_of(bits, bits)
    values, made = constants(graph), producers(graph)
    for node in nodes(graph, "DequantizeLinear"):
        if node.input[0] in values:
            assert values[node.input[0]].dtype == np.int8
        else:
            quantize = made[node.input[0]]
            assert quantize.op_type == "QuantizeLinear"
            assert quantize.input[1] == node.input[1]


def test_codes_are_bounded_in_float_at_bound_times_scale() -> None:
    graph = graph_of()
    values, made = constants(graph), producers(graph)
    bounds = {}
    for node in nodes(graph, "QuantizeLinear"):
        before = made.get(node.input[0])
        if before is not None and before.op_type == "Clip":
            scale = values[node.input[1]]
            bounds[node.output[0]] = (scale, *(values[name] for name in before.input[1:]))
    scale, lowest, highest = bounds["stem_2.codes"]
    assert float(lowest) == 0 and float(highest) == float(np.float32(15) * scale)
    assert nodes(graph, "Clip") and all(node.input[0] in made for node in nodes(graph, "Clip"))
    # 8-bit codes: the saturation of int8 is one bound or both
    assert "image.codes" not in bounds and "branch_2.codes" not in bounds
    assert made["activation.bounded"].op_type == "Relu"


def test_an_average_of_codes_that_cannot_be_negative_is_quantized_without_a_relu() -> None:
    graph = graph_of()
    (average,) = nodes(graph, "GlobalAveragePool")
    (reader,) = [node for node in graph.node if average.output[0] in node.input]
    assert reader.op_type == "QuantizeLinear"


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_biases_are_the_floats_of_the_integers_that_the_view_holds(bits: int) -> None:
    view, values = small(bits, bits).view, constants(graph_of(bits, bits))
    for name, layer in view.named_modules():
        if isinstance(layer, IntegerLayer):
            assert layer.bias_scale is not None
            expected = layer.bias.numpy().astype(np.float32) * layer.bias_scale.numpy()
            np.testing.assert_array_equal(values[f"{name}.bias"], expected)
            np.testing.assert_array_equal(values[f"{name}.weight"], layer.weight.numpy())
            np.testing.assert_array_equal(values[f"{name}.weight_scale"], layer.weight_scale.numpy())


def test_weights_have_one_scale_per_output_channel_on_axis_zero() -> None:
    graph = graph_of()
    values = constants(graph)
    for node in nodes(graph, "DequantizeLinear"):
        if node.input[0] in values:
            assert values[node.input[1]].shape == values[node.input[0]].shape[:1]
            assert {a.name: a.i for a in node.attribute}["axis"] == 0


@cache
def float_first_layer() -> fx.GraphModule:
    torch.manual_seed(0)
    network, _ = quantized(Small(), policy(4, 4, quantize_image=False), smooth_images(4, SIDE))
    return deploy_view(network, Deploy())


def test_a_layer_that_reads_floats_has_float_weights() -> None:
    graph = onnx.load_from_string(export_tensorrt(float_first_layer(), (3, SIDE, SIDE)).content).graph
    stem = next(node for node in nodes(graph, "Conv") if node.input[0] == "image")
    layer = float_first_layer().get_submodule("stem.0")
    assert isinstance(layer, IntegerLayer)
    np.testing.assert_array_equal(constants(graph)[stem.input[1]], layer.float_weight().numpy())


def test_the_file_is_of_one_opset_and_keeps_no_constant_that_nobody_reads() -> None:
    lowered = small()
    model = onnx.load_from_string(export_tensorrt(lowered.view, (3, SIDE, SIDE)).content)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    assert not nodes(model.graph, "Constant", "Mul", "Cast")


def test_tensors_of_codes_have_the_names_they_have_for_onnx_runtime() -> None:
    lowered = small()
    assert set(export_tensorrt(lowered.view, (3, SIDE, SIDE)).code_tensors) <= set(lowered.graph.code_tensors)
    network = built_in("resnet20", 4, 4, 32)
    found = export_tensorrt(network.view, (3, 32, 32)).code_tensors
    assert found == network.graph.code_tensors


def test_two_exports_are_the_same_bytes() -> None:
    view = small().view
    assert export_tensorrt(view, (3, SIDE, SIDE)) == export_tensorrt(view, (3, SIDE, SIDE))
