"""check, export and build for target tensorrt from the command line; engines are built with TensorRT-RTX."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from saq_qat.errors import SetupError
from saq_qat_export.proof.prove import ProofSize
from saq_qat_export.run import export_run
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.tensorrt.engine_record import EngineRecord
from tests.report.networks import RECIPE, trained_run

pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")

SaqQat = Callable[..., int]
Captured = pytest.CaptureFixture[str]

WIDE = ("deploy.thresholds.max_top1_drop=100.0", "deploy.thresholds.max_flip_rate=1.0")
QUICK = ("--code-images", "2", "--top1-images", "8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for ONNX Runtime alone."""
    return trained_run(tmp_path_factory.mktemp("runs") / "tiny", *WIDE)


@pytest.fixture(scope="module")
def gpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run for TensorRT alone; without an engine."""
    run = trained_run(tmp_path_factory.mktemp("runs") / "gpu", *WIDE, "deploy.targets=[tensorrt]")
    return export_run(run, run / "export", size=ProofSize(2, 8)).folder


@pytest.fixture
def bundle(gpu_bundle: Path, tmp_path: Path) -> Path:
    """The same, for one test to change."""
    return shutil.copytree(gpu_bundle, tmp_path / "bundle")


def test_export_trt_writes_both_graphs_and_an_engine_that_is_int8_throughout(
    saq_qat: SaqQat, run: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert saq_qat("export", str(run), "--onnx", "--trt", *QUICK) == 0
    folder = run / "export"
    shown = capsys.readouterr().out
    assert "3/3 convolutions and products are int8 layers" in shown
    assert "TensorRT-RTX" in shown and "no GPU here" in shown
    manifest, record = Manifest.load(folder), EngineRecord.load(folder, "model.rtx.plan")
    assert {target: model.name for target, model in manifest.models.items()} == {
        "onnxruntime": "model.onnx",
        "tensorrt": "model.tensorrt.onnx",
    }
    assert record.source.sha256 == manifest.models["tensorrt"].sha256
    assert record.audit.integer == record.audit.total == 3
    plain = json.loads((folder / "model.rtx.plan.json").read_text())
    assert plain["flavour"] == "tensorrt-rtx" and plain["gpu"] is None

    assert saq_qat("verify", str(run), "--code-images", "2") == 0
    shown = capsys.readouterr().out
    assert "TensorRT graph read as integers" in shown
    assert "model.rtx.plan was not compared" in shown

    assert saq_qat("check", str(folder / "model.tensorrt.onnx"), "--build") == 0
    shown = capsys.readouterr().out
    assert "no errors" in shown and "3/3 convolutions and products are int8" in shown
    assert saq_qat("check", str(folder / "model.onnx")) == 2
    assert "error TRT002" in capsys.readouterr().out


def test_a_run_for_tensorrt_alone_ships_its_graph_alone(gpu_bundle: Path) -> None:
    assert set(Manifest.load(gpu_bundle).models) == {"tensorrt"}


def test_export_for_tensorrt_without_an_engine_says_how_to_build_one(
    saq_qat: SaqQat, gpu_bundle: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "bundle"
    assert saq_qat("export", str(gpu_bundle.parent), *QUICK, "--output", str(folder)) == 0
    assert f"saq-qat build {folder}" in capsys.readouterr().out.replace("\n", "")


def test_build_takes_the_recipe_of_the_bundle_and_overrides(
    saq_qat: SaqQat, bundle: Path, capsys: Captured
) -> None:
    batch = ("deploy.tensorrt.batch.maximum=5", "deploy.tensorrt.batch.optimum=3")
    assert saq_qat("build", str(bundle), *batch) == 0
    assert "batch 1 to 5, fastest at 3" in capsys.readouterr().out
    (profile,) = EngineRecord.load(bundle, "model.rtx.plan").profiles
    assert (profile.minimum[0], profile.optimum[0], profile.maximum[0]) == (1, 3, 5)
    assert saq_qat("build", str(bundle), "deploy.tensorrt.precision=float16") == 2
    assert "export again" in capsys.readouterr().err


def test_without_a_library_the_bundle_is_delivered_and_the_way_forward_told(
    saq_qat: SaqQat, gpu_bundle: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "bundle"
    run = str(gpu_bundle.parent)
    assert (
        saq_qat("export", run, "--trt", "--flavour", "tensorrt", *QUICK, "--output", str(folder))
        == SetupError.exit_code
    )
    told = capsys.readouterr().err
    assert "pip install" in told and "saq-qat build" in told
    assert set(Manifest.load(folder).models) == {"tensorrt"}
    assert not list(folder.glob("*.plan*"))


def test_a_bundle_for_onnx_runtime_has_no_engine_to_build(
    saq_qat: SaqQat, bundle: Path, capsys: Captured
) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    for section in (manifest["models"], manifest["golden"]["logits_tolerance"]):
        section["onnxruntime"] = section.pop("tensorrt")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert saq_qat("build", str(bundle)) == 3
    assert "--trt" in capsys.readouterr().err


def test_a_damaged_graph_is_never_built(saq_qat: SaqQat, bundle: Path, capsys: Captured) -> None:
    graph = bundle / "model.tensorrt.onnx"
    graph.write_bytes(graph.read_bytes()[:-7])
    assert saq_qat("build", str(bundle)) == 3
    assert "model.tensorrt.onnx" in capsys.readouterr().err


def test_check_refuses_what_is_no_onnx_file_and_values_for_one(
    saq_qat: SaqQat, gpu_bundle: Path, tmp_path: Path, capsys: Captured
) -> None:
    text = tmp_path / "text.onnx"
    shutil.copy(gpu_bundle / "manifest.json", text)
    assert saq_qat("check", str(text)) == 3
    assert saq_qat("check", str(gpu_bundle / "model.tensorrt.onnx"), "seed=1") == 2
    assert "no values to set" in capsys.readouterr().err


def test_check_of_a_recipe_judges_the_planned_graph(
    saq_qat: SaqQat, tmp_path: Path, capsys: Captured
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    targets = "deploy.targets=[onnxruntime, tensorrt]"
    assert saq_qat("check", str(recipe), targets) == 0
    shown = capsys.readouterr().out
    assert "3/3 for onnxruntime\n" in shown and "3/3 for tensorrt\n" in shown
    assert "TRT114" in shown
    assert saq_qat("check", str(recipe), targets, "deploy.tensorrt.precision=float16") == 0
    assert "TRT114" not in capsys.readouterr().out
    assert saq_qat("check", str(recipe), targets, "quant.grid=paper") == 2
    assert "TRT020" in capsys.readouterr().out
