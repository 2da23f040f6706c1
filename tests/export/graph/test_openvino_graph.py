"""The graph for OpenVINO: codes bounded in float before they become uint8, static but for the batch."""

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from saq_qat_export.reference.qdq_graph import QdqGraph
from tests.export.networks import SIDE
from tests.export.openvino_networks import openvino_graph, small_for_openvino


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
        if clip is not None and clip.op_type == "Clip" and clip.output[0].endswith(".bounded"):
            low, high = (graph.array(name) for name in clip.input[1:])
            highest = 127 if quantize.result == "head_pool.codes" else 2**bits - 1 if bits < 8 else 127
            assert low == 0 and high == np.float32(quantize.scale * np.float32(highest))
            bounded += 1
    assert bounded >= 3


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
