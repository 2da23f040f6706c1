"""The comparisons of a graph for TensorRT: right graphs pass, one wrong number is named."""

import re
from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from saq_qat_export.graph.onnx_graph import OnnxGraph, export_tensorrt
from saq_qat_export.graph.passes.float16 import to_float16
from saq_qat_export.proof.codes import tie_images
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.tensorrt import TensorRtGraphs, tensorrt_comparisons
from tests.export.networks import SIDE, Lowered, Small, built_in, lower, policy, small, smooth_images
from tests.export.onnx_models import Array
from tests.export.photos import photos

SHAPE = (3, SIDE, SIDE)


@cache
def graph_of(precision: str) -> OnnxGraph:
    graph = export_tensorrt(small().view, SHAPE)
    return graph if precision == "float32" else in_float16(graph)


def in_float16(graph: OnnxGraph) -> OnnxGraph:
    model = ir.from_proto(onnx.load_from_string(graph.content))
    to_float16(model)
    return OnnxGraph(ir.to_proto(model).SerializeToString(), graph.code_tensors)


def climb(graph: OnnxGraph, *, float16: OnnxGraph | None = None, count: int = 16) -> list[Comparison]:
    found = small()
    graphs = TensorRtGraphs(graph, float16)
    batches = torch.split(smooth_images(count, SIDE, seed=1), 8)
    return tensorrt_comparisons(found.view, found.graph, graphs, batches, tie_images(found.view, SHAPE))


def assert_proved(found: Lowered, images: torch.Tensor) -> None:
    _, channels, height, width = images.shape
    shape = (channels, height, width)
    graph = export_tensorrt(found.view, shape)
    graphs = TensorRtGraphs(graph, in_float16(graph))
    batches, ties = torch.split(images, 4), tie_images(found.view, shape)
    for comparison in tensorrt_comparisons(found.view, found.graph, graphs, batches, ties):
        values = sum(tensor.tie_values for tensor in comparison.tensors)
        print(
            f"{comparison.name}: {comparison.compared:,} compared, {comparison.mismatches} differ; "
            f"{comparison.detail}, {values}"
        )
        assert comparison.passed, comparison
        assert comparison.compared > 0


def test_the_graph_of_every_pattern_is_proved() -> None:
    assert_proved(small(), smooth_images(16, SIDE, seed=1))


def test_the_graph_of_a_built_in_network_is_proved() -> None:
    assert_proved(built_in("resnet20", 8, 8, 16), smooth_images(4, 16, seed=1))


@pytest.mark.parametrize(
    ("targets", "settings"),
    [
        (("tensorrt",), {}),
        (("onnxruntime", "tensorrt"), {"placement": "paper"}),
        (("tensorrt",), {"quantize_image": False}),
    ],
    ids=str,
)
def test_graphs_with_float_parts_are_proved(targets: tuple[str, ...], settings: dict[str, object]) -> None:
    """A residual term, or whole convolutions, that no quantizer follows."""
    torch.manual_seed(0)
    found = lower(Small(), policy(4, 4, **settings), smooth_images(16, SIDE), targets=targets)
    assert_proved(found, smooth_images(8, SIDE, seed=1))


@pytest.mark.slow  # four networks at five bit-widths
@pytest.mark.parametrize("bits", [(2, 2), (3, 3), (4, 4), (4, 8), (8, 8)], ids=str)
@pytest.mark.parametrize("name", ["resnet20", "resnet18", "mobilenet_v2", "resnet50"])
def test_the_whole_matrix_is_proved(name: str, bits: tuple[int, int]) -> None:
    side = 32 if name == "resnet20" else 64
    assert_proved(built_in(name, *bits, side), photos(16, side, seed=1))


def test_float16_is_judged_only_where_it_ships() -> None:
    assert [comparison.hard for comparison in climb(graph_of("float32"), count=8)] == [True, True, True]
    comparisons = climb(graph_of("float32"), float16=graph_of("float16"), count=8)
    assert [comparison.hard for comparison in comparisons] == [True, True, True, True, False]
    assert 0 < comparisons[-1].mismatches < 0.02 * comparisons[-1].compared


def changed(name: str, change: Callable[[Array], None]) -> OnnxGraph:
    """The graph for TensorRT with one constant changed in place."""
    graph = graph_of("float32")
    model = onnx.load_from_string(graph.content)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return OnnxGraph(model.SerializeToString(), graph.code_tensors)


def next_float(values: Array) -> None:
    values.reshape(-1)[0] = np.nextafter(values.reshape(-1)[0], np.float32(np.inf))


def another_code(values: Array) -> None:
    """A weight one step of its 4-bit grid away, at the refinement it is stored with."""
    values.reshape(-1)[0] += 16 if values.reshape(-1)[0] < 0 else -16


def one_code_more(values: Array) -> None:
    """A bias higher by what moves the codes of its first channel."""
    layer = small().view.get_submodule("branch.0.0")
    grid = layer.bias_scale.numpy()[0]  # type: ignore[operator]  # torch: Tensor or Module
    values[0] = (np.rint(values[0] / grid) + np.float32(512)).astype(np.float32) * grid


def one_code_lower(values: Array) -> None:
    values *= np.float32(14 / 15)


def upper_bound(quantizer: str) -> str:
    """Name of the constant that bounds what the quantizer reads."""
    nodes = onnx.load_from_string(graph_of("float32").content).graph.node
    return next(str(n.input[2]) for n in nodes if n.output[0] == f"{quantizer}.bounded")


NUMBERS, READ, EVALUATED = range(3)


@pytest.mark.parametrize(
    ("name", "change", "failing", "detail"),
    [
        (
            "branch.0.0.weight",
            another_code,
            {NUMBERS, READ, EVALUATED},
            r"first at weight of branch\.0\.0: 1 of 864",
        ),
        (
            "branch.0.0.bias",
            one_code_more,
            {NUMBERS, READ, EVALUATED},
            r"first at bias of branch\.0\.0: 1 of 12",
        ),
        (
            "stem_2",
            one_code_lower,
            {NUMBERS, READ, EVALUATED},
            r"first at upper bound of stem_2\.codes: 1 of 1",
        ),
        (
            "branch.0.0.weight_scale",
            next_float,
            {NUMBERS},
            r"first at weight scale of .*|Conv:branch\.0\.0: the bias .* is no integer .*",
        ),
        ("quantizers.branch_2.scale", next_float, {NUMBERS}, r"first at scale of branch_2\.codes: 1 of 1"),
    ],
)
def test_one_wrong_number_fails_and_is_named(
    name: str, change: Callable[[Array], None], failing: set[int], detail: str
) -> None:
    constant = upper_bound(name) if name == "stem_2" else name
    comparisons = climb(changed(constant, change))
    assert {index for index, comparison in enumerate(comparisons) if not comparison.passed} == failing
    assert re.fullmatch(detail, comparisons[NUMBERS].detail)
    named = {comparison.detail.split(":")[0] for comparison in comparisons[1:] if not comparison.passed}
    assert named <= {f"first at {tensor}.codes" for tensor in ("stem_2", "branch_0_2")}


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("branch.0.0.bias", "Conv:branch.0.0"),
        ("quantizers.image.scale", "Conv:stem.0"),
        ("quantizers.relu.scale", "Conv:depthwise.0"),
    ],
)
def test_a_bias_beside_its_grid_fails_and_names_the_layer(name: str, layer: str) -> None:
    (comparison,) = climb(changed(name, next_float), count=8)
    assert (comparison.hard, comparison.passed) == (True, False)
    assert comparison.detail.startswith(f"{layer}: the bias ")


def rewired(edit: Callable[[onnx.GraphProto], None]) -> OnnxGraph:
    """The graph for TensorRT with nodes changed in place."""
    graph = graph_of("float32")
    model = onnx.load_from_string(graph.content)
    edit(model.graph)
    return OnnxGraph(model.SerializeToString(), graph.code_tensors)


def node_of(graph: onnx.GraphProto, op: str, output: str) -> onnx.NodeProto:
    nodes: list[onnx.NodeProto] = [n for n in graph.node if n.op_type == op and n.output[0] == output]
    return nodes[0]


def test_a_dequantizer_with_another_scale_fails() -> None:
    def rescale(graph: onnx.GraphProto) -> None:
        node_of(graph, "DequantizeLinear", "branch_2.values").input[1] = "quantizers.shortcut_1.scale"

    numbers, read, evaluated = climb(rewired(rescale))
    assert numbers.detail == "first at scale of branch_2.values: 1 of 1"
    assert not read.passed
    assert not evaluated.passed


def test_a_term_added_twice_fails() -> None:
    def add_twice(graph: onnx.GraphProto) -> None:
        node_of(graph, "Add", "add").input[1] = "branch_2.values"

    numbers, read, evaluated = climb(rewired(add_twice))
    assert numbers.passed
    for comparison in (read, evaluated):
        assert not comparison.passed
        assert comparison.detail.startswith("first at relu.codes: ")


def test_a_shifted_window_fails() -> None:
    def shift(graph: onnx.GraphProto) -> None:
        (pads,) = (a for a in node_of(graph, "Conv", "branch.1").attribute if a.name == "pads")
        pads.ints[:] = [0, 1, 2, 1]

    numbers, read, evaluated = climb(rewired(shift))
    assert (numbers.passed, read.passed, evaluated.passed) == (True, False, False)
