"""A run for OpenVINO, from recipe to session: what its bundle holds, says and computes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from saq_qat.bench.run import bench_run
from saq_qat.errors import LegalityError
from saq_qat.models.build import build_model
from saq_qat.recipe.schema import Recipe
from saq_qat_export.proof.prove import KERNEL_COMPARISON, ProofSize
from saq_qat_export.rehearsal import check_deployable
from saq_qat_export.run import Exported, export_run
from saq_qat_runtime.bench.cpu import BenchSize
from saq_qat_runtime.bench.record import BUNDLE_OPENVINO, FLOAT, FLOAT_OPENVINO
from saq_qat_runtime.errors import BackendUnavailable, ModelError
from saq_qat_runtime.session import Session
from tests.report.networks import small_recipe, trained_run

SIZE = ProofSize(code_images=4, top1_images=40)
QUICK = BenchSize(batches=(1,), seconds=0.2, warmup_seconds=0.0, accuracy_images=40)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    run = trained_run(tmp_path_factory.mktemp("openvino") / "run", "deploy.targets=[openvino]")
    return export_run(run, run / "export", size=SIZE)


def test_the_bundle_holds_one_model_which_is_proved_on_openvino(exported: Exported) -> None:
    assert {target: model.name for target, model in exported.manifest.models.items()} == {
        "openvino": "model.openvino.onnx"
    }
    assert {file.name for file in exported.folder.iterdir()} == {
        "expected.csv",
        "golden.npz",
        "manifest.json",
        "model.openvino.onnx",
    }
    passed = {comparison.name: comparison.passed for comparison in exported.proof.comparisons}
    assert exported.manifest.gate.passed
    for name in (
        "integer reference = OpenVINO",
        "deploy view in float64 = OpenVINO, sums layer by layer",
        "quantizers that OpenVINO rounds by = all",
        "integer reference = OpenVINO, sums of codes in one kernel with a convolution",
        "OpenVINO's logits as it ships = behind its codes of sums",
        "numbers of the graph for openvino = checkpoint",
        "top-1 of OpenVINO = ONNX Runtime",
        f"{KERNEL_COMPARISON} of openvino",
    ):
        assert passed[name], name


def test_kernels_are_those_of_openvinos_graph(exported: Exported) -> None:
    kernels = exported.proof.kernels
    assert kernels is not None
    assert (kernels.integer, kernels.total) == (3, 3)
    assert set(kernels.by_op) == {"Convolution", "FullyConnected"}


def test_a_session_takes_openvino_and_gives_the_golden_logits(exported: Exported) -> None:
    with Session.load(exported.folder) as session:
        assert (session.info.target, session.info.backend) == ("openvino", "openvino")
        assert session.self_test().compared > 0
        with np.load(exported.folder / "golden.npz") as golden:
            np.testing.assert_allclose(session(golden["inputs"]), golden["logits"], atol=1e-4)
        assert session.integer_count().integer == 3


def test_a_bundle_for_openvino_alone_runs_on_no_other_engine(exported: Exported) -> None:
    with pytest.raises(ModelError, match="Export it for 'onnxruntime'"):
        Session.load(exported.folder, "onnxruntime")


def test_two_exports_are_byte_identical(exported: Exported, tmp_path: Path) -> None:
    again = export_run(exported.folder.parent, tmp_path / "again", size=SIZE)
    for name in ("model.openvino.onnx", "golden.npz", "expected.csv", "manifest.json"):
        assert (again.folder / name).read_bytes() == (exported.folder / name).read_bytes(), name


def test_it_is_measured_beside_float_and_static_int8(exported: Exported) -> None:
    bench, _ = bench_run(exported.folder.parent, exported.folder, QUICK)
    assert bench.bundle == BUNDLE_OPENVINO
    timing, candidate = bench.timing(BUNDLE_OPENVINO, 1), bench.candidate(BUNDLE_OPENVINO)
    assert timing is not None and timing.over_float is not None
    assert candidate is not None and candidate.integer is not None and candidate.integer.integer == 3
    assert candidate.top1 is not None
    assert bench.candidate(FLOAT) is not None and bench.candidate(FLOAT_OPENVINO) is not None
    alone, _ = bench_run(exported.folder.parent, exported.folder, QUICK, backend="openvino", baselines=False)
    assert [found.name for found in alone.candidates] == [BUNDLE_OPENVINO]


def test_a_bundle_for_both_engines_is_measured_on_both(tmp_path: Path) -> None:
    both = ("deploy.targets=[onnxruntime,openvino]", "quant.placement=paper")
    run = trained_run(tmp_path / "run", *both)
    export_run(run, run / "export", size=SIZE)
    bench, _ = bench_run(run, run / "export", QUICK, baselines=False)
    assert [found.name for found in bench.candidates] == ["bundle, ONNX Runtime", BUNDLE_OPENVINO]
    assert Session.load(run / "export").info.backend == "openvino"


def rehearsed(recipe: Recipe) -> None:
    from saq_qat.data.open import open_data

    images = open_data(recipe.data, seed=0)
    check_deployable(build_model(recipe.model, len(images.classes)), recipe, images)


def test_check_refuses_sums_of_codes_and_says_what_to_change() -> None:
    with pytest.raises(LegalityError, match="OV001"):
        rehearsed(small_recipe("deploy.targets=[onnxruntime,openvino]"))


def test_check_takes_a_transformer_with_offsets_whose_biases_are_zeros_as_before_its_training() -> None:
    """OpenVINO refuses a reshape into heads right behind a layer without a bias."""
    pytest.importorskip("timm", reason="needs the extra vit")
    rehearsed(
        small_recipe(
            "deploy.targets=[openvino]",
            "data.image_size=16",
            "model={name: vit_micro, arguments: {depth: 1, img_size: 16}}",
            "quant.weight={kind: lsq, bits: 4}",
            "quant.activation={kind: lsq, bits: 4, offset: bounded}",
        )
    )


def test_without_the_package_nothing_is_trained_or_exported(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailable, match="pip install openvino"):
        export_run(exported.folder.parent, tmp_path / "bundle", size=SIZE)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BackendUnavailable, match="pip install openvino"):
        rehearsed(small_recipe("deploy.targets=[openvino]"))
