"""A graph in float16 breaks no rule, and becomes an engine whose products are all int8."""

from pathlib import Path

import pytest

from saq_qat.recipe.schema import TensorRt
from saq_qat_export.graph.onnx_graph import export_tensorrt
from saq_qat_export.tensorrt.own_graphs import lint_graph
from saq_qat_runtime.tensorrt.build.engine import build_engine
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from tests.export.networks import Lowered, built_in, small

HALF = TensorRt(precision="float16")


def check_engine(found: Lowered, folder: Path) -> None:
    _, channels, height, width = found.images.shape
    graph = export_tensorrt(found.view, (channels, height, width), HALF)
    source = folder / "model.tensorrt.onnx"
    source.write_bytes(graph.content)
    audit = build_engine(source, BuildOptions(flavour="tensorrt-rtx", precision="float16")).record.audit
    assert audit.missed == ()
    assert audit.integer == audit.total == len(found.plan.layers)


def test_no_rule_is_broken() -> None:
    findings = lint_graph(export_tensorrt(small().view, (3, 16, 16), HALF), HALF)
    assert {finding.rule for finding in findings if finding.level != "note"} <= {"TRT109"}


def test_every_product_of_the_small_network_is_an_int8_layer(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
    check_engine(small(), tmp_path)


@pytest.mark.slow  # builds engines of whole networks
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_every_product_of_a_whole_network_is_an_int8_layer(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
    check_engine(built_in(name, 4, 4, 64), tmp_path)
