"""The report tells what an engine is, how many of its layers are int8, and that it was never run."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from saq_qat.errors import ArtifactError
from saq_qat.report.collect import collect
from saq_qat.report.engines import built_engines, engine_lines, engine_warnings, missed_layers
from saq_qat.report.report_json import report_json
from saq_qat.report.report_text import report_text
from saq_qat.report.verdict import judge_run
from saq_qat_runtime.bench.gpu_machine import GpuMachine
from saq_qat_runtime.bench.gpu_record import GpuBench, GpuTiming
from saq_qat_runtime.bench.record import Bench
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.bundle.records import FileRecord
from saq_qat_runtime.tensorrt.engine_record import Audit, EngineRecord
from tests.runtime.fake_tensorrt import PLAN, record_of

MODEL = FileRecord("model.tensorrt.onnx", "a" * 64, 4)


@pytest.fixture
def manifest(exported: Path) -> Manifest:
    """Of a bundle for both targets."""
    return with_tensorrt(Manifest.load(exported / "export"), MODEL)


def with_tensorrt(manifest: Manifest, model: FileRecord) -> Manifest:
    """The same with a model for TensorRT too."""
    tolerances = {**manifest.golden.logits_tolerance, "tensorrt": 1e-3}
    return dataclasses.replace(
        manifest,
        models={**manifest.models, "tensorrt": model},
        golden=dataclasses.replace(manifest.golden, logits_tolerance=tolerances),
    )


def whole(**changes: Any) -> EngineRecord:
    """An engine whose every layer became what it should."""
    layers = tuple(layer for layer in record_of().audit.layers if layer.integer)
    return record_of(source=MODEL, audit=Audit("build log", layers), **changes)


def write(folder: Path, record: EngineRecord, content: bytes = PLAN) -> None:
    (folder / record.file.name).write_bytes(content)
    (folder / f"{record.file.name}.json").write_text(record.to_json())


def test_an_engine_built_without_a_gpu_is_called_not_run(tmp_path: Path, manifest: Manifest) -> None:
    write(tmp_path, whole(gpu=None, driver=None, cuda=None))
    text = "\n".join(engine_lines(built_engines(tmp_path, manifest), None))
    assert "TensorRT 10.16.1.11: 2/2 int8 convolutions and products (build log)" in text
    assert "batch 1 to 8, float32 between int8 layers, built without a GPU" in text
    assert "not run: no GPU on the machine that built it" in text


def test_the_reason_that_bench_met_is_the_one_that_is_told(
    tmp_path: Path, manifest: Manifest, bench: Bench
) -> None:
    write(tmp_path, whole(gpu=None))
    refused = dataclasses.replace(bench, not_run=("tensorrt: There is no CUDA driver.",))
    text = "\n".join(engine_lines(built_engines(tmp_path, manifest), refused))
    assert "not run: tensorrt: There is no CUDA driver." in text


def test_only_the_engine_that_was_measured_is_called_run(
    tmp_path: Path, manifest: Manifest, bench: Bench
) -> None:
    write(tmp_path, whole())
    summary = bench.timings[0].latency
    timing = GpuTiming("bundle, TensorRT", 8, False, summary, 1.0, 0.1, True, None, None, ())
    machine = GpuMachine("NVIDIA H100", "9.0", None, None, None)
    gpu = GpuBench(
        "tensorrt", "10.16.1.11", timing.candidate, whole().file.sha256, 0.0, 0.1, machine, (timing,)
    )
    (engine,) = built_engines(tmp_path, manifest)
    run = engine_lines((engine,), dataclasses.replace(bench, gpu=gpu))
    assert "run on NVIDIA H100: median 10.1 ms at batch 8, without transfers" in run[2]
    other = dataclasses.replace(gpu, engine_sha256="b" * 64)
    assert "not run" in engine_lines((engine,), dataclasses.replace(bench, gpu=other))[2]


@pytest.mark.parametrize(
    ("record", "content", "reason"),
    [
        (record_of(), PLAN, "built from another model"),
        (whole(), b"changed", "is not the file it tells of"),
    ],
)
def test_an_engine_of_another_model_or_file_is_of_no_use_and_its_audit_is_not_shown(
    tmp_path: Path, manifest: Manifest, record: EngineRecord, content: bytes, reason: str
) -> None:
    write(tmp_path, record, content)
    engines = built_engines(tmp_path, manifest)
    (line,) = engine_lines(engines, None)
    assert reason in line and "int8" not in line
    assert missed_layers(engines) == []
    assert any(reason in warning and "saq-qat build" in warning for warning in engine_warnings(engines))


def test_an_engine_that_was_removed_is_noticed(tmp_path: Path, manifest: Manifest) -> None:
    write(tmp_path, whole())
    (tmp_path / "model.plan").unlink()
    (engine,) = built_engines(tmp_path, manifest)
    assert engine.stale == "model.plan is missing"


def test_a_damaged_record_names_the_command_that_mends_it(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "model.plan.json").write_text("[")
    with pytest.raises(ArtifactError, match="saq-qat build"):
        built_engines(tmp_path, manifest)


def both_targets(exported: Path, folder: Path, record: EngineRecord) -> Path:
    """A run whose bundle is for both targets and holds this engine."""
    run = Path(shutil.copytree(exported, folder / "run"))
    bundle = run / "export"
    own = Manifest.load(bundle)
    shutil.copy(bundle / "model.onnx", bundle / MODEL.name)
    model = dataclasses.replace(own.models["onnxruntime"], name=MODEL.name)
    (bundle / "manifest.json").write_text(with_tensorrt(own, model).to_json())
    write(bundle, dataclasses.replace(record, source=model))
    return run


def test_the_report_shows_the_audit_and_json_holds_it(exported: Path, tmp_path: Path) -> None:
    known = collect(both_targets(exported, tmp_path, whole(gpu=None)))
    text = report_text(known)
    section = text[text.index("TensorRT engines") :]
    assert "2/2 int8" in section[1]
    assert "tensorrt engine 2/2 int8" in judge_run(known).reason
    values = json.loads(json.dumps(report_json(known), allow_nan=False))
    assert values["engines"][0]["record"]["audit"]["layers"][0]["integer"] is True


def test_a_quantized_layer_in_float_fails_the_run(exported: Path, tmp_path: Path) -> None:
    known = collect(both_targets(exported, tmp_path, record_of()))
    verdict = judge_run(known)
    assert verdict.status == "FAIL"
    assert "1 of 3 products are quantized but run in float" in verdict.reason
    assert any("conv2: its scale has a dimension" in line for line in report_text(known))


def test_a_bundle_for_tensorrt_without_an_engine_says_how_to_build_it(exported: Path, tmp_path: Path) -> None:
    run = both_targets(exported, tmp_path, whole())
    for name in ("model.plan", "model.plan.json"):
        (run / "export" / name).unlink()
    assert any(
        f"none was built: saq-qat build {run / 'export'}" in line for line in report_text(collect(run))
    )


def test_a_run_for_onnxruntime_alone_says_nothing_of_engines(exported: Path) -> None:
    assert "TensorRT engines" not in report_text(collect(exported))
