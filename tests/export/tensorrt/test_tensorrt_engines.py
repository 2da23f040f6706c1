"""Whole networks as engines: every convolution and product int8 in what TensorRT-RTX really builds."""

from pathlib import Path

import pytest

from saq_qat.quant.deploy.view import deploy_view
from saq_qat.recipe.schema import Deploy, TensorRt
from saq_qat_export.graph.onnx_graph import export_tensorrt
from saq_qat_export.tensorrt.own_graphs import lint_graph
from saq_qat_runtime.tensorrt.build.engine import build_engine
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from tests.export.cases import TINY, Case, refusals
from tests.export.networks import built_in, quantized, smooth_images
from tests.export.test_tokens import SHAPE, transformer

pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")

OPTIONS = BuildOptions(flavour="tensorrt-rtx", batch=(1, 4, 16))
PRODUCTS = {"resnet18": 21, "resnet50": 54, "mobilenet_v2": 53, "resnet20": 22}


def check_engine(name: str, weight_bits: int, activation_bits: int, side: int, folder: Path) -> None:
    graph = export_tensorrt(built_in(name, weight_bits, activation_bits, side).view, (3, side, side))
    source = folder / "model.tensorrt.onnx"
    source.write_bytes(graph.content)
    record = build_engine(source, OPTIONS).record
    assert record.audit.missed == ()
    assert (record.audit.integer, record.audit.total) == (PRODUCTS[name], PRODUCTS[name])
    (profile,) = record.profiles
    assert (profile.minimum, profile.maximum) == ((1, 3, side, side), (16, 3, side, side))


# One engine of a whole network is enough for every run.
@pytest.mark.parametrize("name", ["resnet18", pytest.param("mobilenet_v2", marks=pytest.mark.slow)])
def test_every_product_of_a_w4a4_network_is_an_int8_layer(name: str, tmp_path: Path) -> None:
    check_engine(name, 4, 4, 64, tmp_path)


@pytest.mark.parametrize(
    "name",
    # Slow: networks of full size.
    ["resnet20", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "mobilenet_v2"))],
)
def test_our_graphs_break_no_rule_but_that_float32_stands_between_the_layers(name: str) -> None:
    side = 32 if name == "resnet20" else 64
    graph = export_tensorrt(built_in(name, 4, 4, side).view, (3, side, side))
    findings = lint_graph(graph, TensorRt())
    assert [finding for finding in findings if finding.level == "error"] == []
    assert {finding.rule for finding in findings if finding.level == "warning"} <= {"TRT109", "TRT114"}


# Each kind of attention and each precision once; the other pairs of them with the slow ones.
@pytest.mark.parametrize(
    ("attention", "integer", "precision"),
    [
        ("float", 8, "float16"),
        ("int8", 10, "float32"),
        pytest.param("float", 8, "float32", marks=pytest.mark.slow),  # as said above
        pytest.param("int8", 10, "float16", marks=pytest.mark.slow),  # as said above
    ],
)
def test_linear_layers_on_tokens_are_int8_and_attention_is_what_was_asked_for(
    attention: str, integer: int, precision: str, tmp_path: Path
) -> None:
    settings = TensorRt.model_validate({"attention": attention, "precision": precision})
    source = tmp_path / "model.tensorrt.onnx"
    source.write_bytes(export_tensorrt(transformer().view, SHAPE, settings).content)
    audit = build_engine(source, OPTIONS).record.audit
    assert audit.missed == ()
    layers = [layer for layer in audit.layers if layer.expected]
    assert [layer.integer for layer in layers] == [True] * integer
    assert sum(layer.op == "MatMul" for layer in layers) == integer - 8


@pytest.mark.parametrize("kind", ["saq", "symmetric"])
def test_a_transformer_of_8_bits_is_an_engine_of_int8_layers(kind: str, tmp_path: Path) -> None:
    """Attention is float; all else of it is int8."""
    case = Case(TINY[0], 8, kind, "none")
    assert not refusals(case)
    side = case.network.side
    network, plan = quantized(case.model(), case.policy(), smooth_images(8, side))
    source = tmp_path / "model.tensorrt.onnx"
    source.write_bytes(export_tensorrt(deploy_view(network, Deploy()), (3, side, side)).content)
    audit = build_engine(source, OPTIONS).record.audit
    assert audit.missed == ()
    assert (audit.integer, audit.total) == (len(plan.layers), len(plan.layers) + 2)


@pytest.mark.slow  # builds engines of whole networks
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("bits", [(2, 2), (4, 8), (8, 8)])
def test_every_product_is_int8_at_any_bits_and_full_size(
    name: str, bits: tuple[int, int], tmp_path: Path
) -> None:
    check_engine(name, *bits, 224, tmp_path)
