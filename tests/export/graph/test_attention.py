"""Attention for TensorRT: in float by default, whole, with everything around it in int8; int8 on request."""

from functools import cache
from typing import cast

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.recipe.schema import TensorRt
from saq_qat_export.graph.attention import Attention, with_attention
from saq_qat_export.graph.onnx_graph import OnnxGraph, export_tensorrt
from saq_qat_export.lint import LintSettings, batch_profiles, lint
from saq_qat_export.proof.codes import tie_images
from saq_qat_export.proof.probe import Probe
from saq_qat_export.proof.tensorrt import TensorRtGraphs, tensorrt_comparisons
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.export.networks import CLASSES, Lowered, lower, policy, smooth_images
from tests.export.proof.test_tokens_proof import changed
from tests.export.test_tokens import SHAPE, SIDE, assert_proved, images, transformer

INSIDE = {"k.codes", "v.codes", "mul.codes", "softmax.codes"}
MODES: tuple[Attention, ...] = ("float", "int8")


@cache
def graph_of(attention: Attention) -> OnnxGraph:
    return export_tensorrt(transformer().view, SHAPE, TensorRt(attention=attention))


def nodes_of(graph: OnnxGraph) -> list[onnx.NodeProto]:
    return list(onnx.load_from_string(graph.content).graph.node)


def test_float_attention_has_no_codes_inside_and_all_around_it() -> None:
    full, cut = (graph_of(mode).code_tensors for mode in ("int8", "float"))
    assert set(full) == set(transformer().graph.code_tensors)
    assert set(full) - set(cut) == INSIDE
    producer = {name: node for node in nodes_of(graph_of("float")) for name in node.output}
    for product in (node for node in nodes_of(graph_of("float")) if node.op_type == "MatMul"):
        assert {producer[name].op_type for name in product.input} <= {"Mul", "Softmax", "Transpose"}


def test_attention_is_float_unless_asked_otherwise() -> None:
    assert export_tensorrt(transformer().view, SHAPE) == graph_of("float")


@pytest.mark.parametrize("attention", MODES)
def test_every_linear_layer_is_a_gemm_of_int8_on_both_sides(attention: Attention) -> None:
    nodes = nodes_of(graph_of(attention))
    producer = {name: node for node in nodes for name in node.output}
    gemms = [node for node in nodes if node.op_type == "Gemm"]
    assert len(gemms) == 7
    for gemm in gemms:
        data, weight = (producer[name] for name in gemm.input[:2])
        while data.op_type in ("Reshape", "Transpose"):
            data = producer[data.input[0]]
        assert (data.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert producer[data.input[0]].op_type == "QuantizeLinear"


@pytest.mark.parametrize("attention", MODES)
def test_the_graph_keeps_the_rules(attention: Attention) -> None:
    model = onnx.load_from_string(graph_of(attention).content)
    settings = LintSettings(profiles=batch_profiles(model, 1, 2, 4), narrow_weights=True)
    findings = lint(model, settings)
    assert not [finding for finding in findings if finding.level == "error"]
    assert ("TRT111" in {finding.rule for finding in findings}) == (attention == "int8")


@pytest.mark.parametrize("attention", MODES)
def test_the_graph_is_proved(attention: Attention) -> None:
    found, graph = transformer(), graph_of(attention)
    graphs = TensorRtGraphs(graph, attention=attention)
    batches = [images(4)]
    comparisons = tensorrt_comparisons(
        found.view, found.graph, graphs, batches, tie_images(found.view, SHAPE)
    )
    for comparison in comparisons:
        assert comparison.passed, comparison
    compared = {tensor.name for tensor in comparisons[1].tensors}
    assert compared == {*graph.code_tensors, *graph.float_results}


def test_a_wrong_weight_behind_which_nothing_is_quantized_fails_and_is_named() -> None:
    found = transformer()

    def one_more(values: np.ndarray) -> None:
        values.reshape(-1)[0] += 1

    graph = changed("fc2.weight", one_more, graph_of("float"))
    ties = tie_images(found.view, SHAPE)
    numbers, read, _ = tensorrt_comparisons(found.view, found.graph, TensorRtGraphs(graph), [images(4)], ties)
    assert numbers.detail.startswith("first at weight of fc2: 1 of ")
    assert not read.passed and read.detail.startswith("first at fc2: ")


def quantizers(view: nn.Module) -> set[str]:
    modules = view.get_submodule("quantizers").named_children()
    return {name for name, module in modules if isinstance(module, Quantize)}


def test_a_view_without_products_stays_the_same_object() -> None:
    view = transformer().view
    assert with_attention(view, "int8") is view
    cut = with_attention(view, "float")
    assert with_attention(cut, "float") is cut
    assert quantizers(view) - quantizers(cut) == {name.removesuffix(".codes") for name in INSIDE}


def test_the_view_that_is_cut_keeps_its_own_quantizers() -> None:
    view, batch = transformer().view, images(2)
    before = view(batch)
    assert not torch.equal(with_attention(view, "float")(batch), before)
    assert torch.equal(view(batch), before)


class Kernel(nn.Module):
    """Linear attention: ReLUs that live on as bounds of codes, and a tensor that a product shares."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.last = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = F.relu(self.q(x)), F.relu6(self.k(x)), self.v(x)
        context = torch.matmul(k.transpose(1, 2), v)
        return cast(Tensor, self.last(torch.matmul(q, context).mean(1)))


@cache
def linear_attention() -> Lowered:
    torch.manual_seed(0)
    return lower(Kernel(), policy(4, 4), smooth_images(8, SIDE))


def test_a_product_hands_int8_codes_to_the_next_one() -> None:
    """By way of uint8, which its kernel writes."""
    found = linear_attention()
    assert_proved(found, [images(16)])
    kernels = OnnxRuntimeBackend(found.graph.content).integer_count()
    assert kernels.by_op == {"MatMulIntegerToFloat": 1, "QGemm": 4, "QLinearConv": 1, "QLinearMatMul": 1}
    assert Probe(found.graph).run(images().numpy())[0]["matmul.codes"].dtype == np.int8


def test_a_relu_that_only_bounds_codes_stays_when_they_go() -> None:
    found = linear_attention()
    graph = export_tensorrt(found.view, SHAPE)
    products = [node for node in nodes_of(graph) if node.op_type == "MatMul"]
    producer = {name: node for node in nodes_of(graph) for name in node.output}
    for product in products:
        node = producer[product.input[0]]
        while node.op_type == "Transpose":
            node = producer[node.input[0]]
        assert node.op_type == "Clip"
    comparisons = tensorrt_comparisons(
        found.view, found.graph, TensorRtGraphs(graph), [images(4)], tie_images(found.view, SHAPE)
    )
    assert all(comparison.passed for comparison in comparisons), comparisons
