"""The rules that only a builder can check, on graphs that break and keep them."""

from pathlib import Path

import onnx
import pytest

from saq_qat_export.graph.onnx_graph import export_tensorrt
from saq_qat_export.tensorrt.engine_rules import audit_findings, try_build
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from saq_qat_runtime.tensorrt.engine_record import Audit, LayerVerdict
from tests.export.networks import SIDE, small

RTX = BuildOptions(flavour="tensorrt-rtx", batch=(1, 2, 4))


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return onnx.load_from_string(export_tensorrt(small().view, (3, SIDE, SIDE)).content)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.tensorrt.onnx"
    onnx.save(model, path)
    return path


def test_a_graph_that_builds_in_int8_breaks_no_rule(graph: onnx.ModelProto, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
    built, findings = try_build(saved(graph, tmp_path), RTX)
    assert built is not None and findings == ()


def test_a_graph_that_cannot_be_built_breaks_trt201(graph: onnx.ModelProto, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
    broken = onnx.ModelProto()
    broken.CopyFrom(graph)
    scale = next(t for t in broken.graph.initializer if t.name.endswith("relu.scale"))
    scale.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(scale), scale.name))
    built, (finding,) = try_build(saved(broken, tmp_path), RTX)
    assert built is None
    assert (finding.rule, finding.level, finding.where) == ("TRT201", "error", "model.tensorrt.onnx")


def verdict(op: str, *, integer: bool, expected: bool = True) -> LayerVerdict:
    return LayerVerdict(f"{op}:a", op, expected, integer, "a_myl0", "" if integer else "its input is Float")


@pytest.mark.parametrize(("source", "rule"), [("build log", "TRT202"), ("engine inspector", "TRT301")])
def test_a_quantized_layer_that_runs_in_float_is_an_error(source: str, rule: str) -> None:
    (finding,) = audit_findings(
        Audit(source, (verdict("Conv", integer=False), verdict("Gemm", integer=True)))
    )
    assert (finding.rule, finding.level, finding.where) == (rule, "error", "Conv:a")
    assert "Float" in finding.message


def test_a_transposed_convolution_in_float_is_a_warning() -> None:
    (finding,) = audit_findings(Audit("build log", (verdict("ConvTranspose", integer=False),)))
    assert finding.level == "warning"


def test_a_layer_that_was_never_quantized_breaks_nothing() -> None:
    assert audit_findings(Audit("build log", (verdict("Conv", integer=False, expected=False),))) == ()
