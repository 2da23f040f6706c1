"""The graph for OpenVINO: codes bounded in float before they become uint8, static but for the batch."""

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from saq_qat_export.lint.pair_bound import integer_products, pair_findings
from saq_qat_export.reference.qdq_graph import QdqGraph
from tests.export.networks import SIDE
from tests.export.openvino_networks import lowered_for_openvino, openvino_graph, small_for_openvino
from tests.quant.networks import Shortcut


@cache
def graph_of(bits: int) -> onnx.GraphProto:
    return onnx.load_from_string(openvino_graph(small_for_openvino(bits), SIDE).content).graph


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_are_bounded_by_a_clip_in_float_at_the_values_of_the_outermost_codes(bits: int) -> None:
    graph = QdqGraph(graph_of(bits))
    bounded = 0
    for quantize in graph.quantizers.values():
        assert quantize.scale is not None and quantize.scale.shape == ()
        assert quantize.zero_point is not None and quantize.zero_point.dtype == np.uint8
        assert [reader.op_type for reader in graph.readers(quantize.result)].count("Clip") == 0
        clip = graph.producers.get(quantize.source)
        if clip is not None and clip.op_type == "Abs":
            clip = graph.producers.get(clip.input[0])
        if clip is not None and clip.op_type == "Clip" and clip.output[0].endswith(".bounded"):
            low, high = (graph.array(name) for name in clip.input[1:])
            highest = 127 if quantize.result == "head_pool.codes" else 2**bits - 1 if bits < 8 else 127
            assert low == 0 and high == np.float32(quantize.scale * np.float32(highest))
            bounded += 1
    assert bounded >= 3


def writers(graph: QdqGraph, codes: str) -> list[str]:
    """Operators before codes, back to the one that knows no codes of its own."""
    found, name = list[str](), graph.quantizers[codes].source
    while (node := graph.producers[name]).op_type in ("Abs", "Clip", "MaxPool"):
        found.append(node.op_type)
        name = node.input[0]
    return [*found, node.op_type]


def test_absolute_values_keep_bounds_apart_from_rounding_and_codes_from_float32() -> None:
    found = lowered_for_openvino(Shortcut(10), 4, SIDE)
    graph = QdqGraph(onnx.load_from_string(openvino_graph(found, SIDE).content).graph)
    assert writers(graph, "stem_relu.codes") == ["Conv"], "0..255 need no bound"
    assert writers(graph, "stem_relu_4bit.codes") == ["Clip", "Abs", "DequantizeLinear"]
    assert writers(graph, "relu_4bit.codes") == ["Clip", "Abs", "DequantizeLinear"]
    small = QdqGraph(graph_of(4))
    assert writers(small, "branch_0_2.codes") == ["Abs", "Clip", "Conv"]
    assert writers(small, "shortcut_1.codes") == ["Conv"], "signed codes"


def test_absolute_values_are_of_what_is_never_negative() -> None:
    graph = QdqGraph(graph_of(4))
    magnitudes = [node for node in graph.nodes if node.op_type == "Abs"]
    clips = [graph.producers[node.input[0]] for node in magnitudes]
    assert clips and all(clip.op_type == "Clip" and graph.array(clip.input[1]) == 0 for clip in clips)
    assert all(node.output[0].endswith(".magnitude") for node in magnitudes)


def test_bounds_behind_absolute_values_count_for_the_pair_bound() -> None:
    model = onnx.load_from_string(openvino_graph(small_for_openvino(4), SIDE).content)
    largest = {product.name: product.largest_first for product in integer_products(model)}
    assert largest["Conv:branch.1"] == 15 and largest["Conv:stem.0"] == 255
    assert pair_findings(model) == ()


def test_every_shape_is_static_but_for_the_batch() -> None:
    graph = graph_of(4)
    for entry in graph.value_info:
        sizes = [size.dim_value for size in entry.type.tensor_type.shape.dim]
        assert entry.type.tensor_type.HasField("shape"), entry.name
        assert all(size > 0 for size in sizes[1:]) or entry.name.endswith(("weight_scaled", "bias.values"))


def test_weights_of_four_bits_are_packed() -> None:
    packed = [t for t in graph_of(4).initializer if t.name.endswith("_packed")]
    assert packed and all(t.data_type == onnx.TensorProto.UINT4 for t in packed)
    assert all(numpy_helper.to_array(t).max() <= 15 for t in packed)
