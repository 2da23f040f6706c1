"""From a run's folder to a bundle that the runtime loads: whole or not at all, and only if it is proved."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saq_qat.errors import ArtifactError, GateError, SaqError
from saq_qat.recipe.schema import Thresholds
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from saq_qat_export import run as run_module
from saq_qat_export.bundle import write as bundle_module
from saq_qat_export.proof.lowered import Lowered, lower_run
from saq_qat_export.proof.predictions import FAKE_QUANT_COMPARISON, agreement_comparisons
from saq_qat_export.proof.prove import Proof, ProofSize, prove
from saq_qat_export.reference.deploy_view import run_reference
from saq_qat_export.run import export_run
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import ModelError
from saq_qat_runtime.session import Session
from tests.export.networks import SIDE, smooth_images
from tests.train.small_recipe import small_recipe
from tests.train.stopping import sigterm_at

RECIPE = small_recipe(
    "model.name=tests.export.networks:Small",
    "data.image_size=16",
    "data.train_size=64",
    "data.val_size=24",
    "quant.calibration_batches=2",
    "train.stages.0.lr=0.02",
    "deploy.thresholds={max_top1_drop: 100, max_flip_rate: 1}",  # two dozen images that mean nothing
)
SIZE = ProofSize(4, 24)
FILES = ["expected.csv", "golden.npz", "manifest.json", "model.onnx", "probes.npz"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    run_training(RECIPE, folder)
    return folder


@pytest.fixture(scope="module")
def lowered(run: Path) -> Lowered:
    return lower_run(run, "last")


@pytest.fixture(autouse=True)
def _lower_once(lowered: Lowered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds; that two exports agree is promised, and tested, elsewhere."""
    monkeypatch.setattr(run_module, "lower_run", lambda run, checkpoint, **_: lowered)


@pytest.fixture(scope="module")
def bundle(run: Path, lowered: Lowered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "lower_run", lambda run, checkpoint, **_: lowered)
        export_run(run, folder, size=SIZE)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_bundle_loads_tests_itself_and_predicts_what_the_reference_does(
    bundle: Path, lowered: Lowered
) -> None:
    images = smooth_images(5, SIDE).numpy()
    with Session.load(bundle) as session:
        assert session.self_test().largest_difference == 0
        np.testing.assert_array_equal(session(images), run_reference(lowered.view, images).logits)
        assert session.integer_count().integer == session.integer_count().total == 6
    manifest = Manifest.load(bundle)
    assert (manifest.gate.passed, manifest.gate.allowed_failed) == (True, False)
    assert [layer.name for layer in manifest.layers] == [layer.name for layer in lowered.plan.layers]
    assert tuple(tensor.code_tensor for tensor in manifest.tensors) == lowered.graph.code_tensors


def test_golden_codes_are_those_of_the_reference(bundle: Path, lowered: Lowered) -> None:
    with np.load(bundle / "golden.npz") as golden:
        reference = run_reference(lowered.view, golden["inputs"])
        np.testing.assert_array_equal(golden["logits"], reference.logits)
        assert set(golden.files) == {"inputs", "logits", *reference.codes}
        for name, codes in reference.codes.items():
            np.testing.assert_array_equal(golden[name], codes)


def test_the_same_checkpoint_gives_the_same_bytes(run: Path, bundle: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "again", size=SIZE)
    assert contents(tmp_path / "again") == contents(bundle)
    assert sorted(contents(bundle)) == FILES


def test_nothing_in_a_bundle_tells_where_it_was_made(run: Path, bundle: Path) -> None:
    for content in contents(bundle).values():
        assert str(run).encode() not in content
        assert str(Path.cwd()).encode() not in content


def test_a_new_bundle_replaces_an_older_one_and_leaves_nothing_beside_it(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    graph = {"name": "model.openvino.onnx", "sha256": "0" * 64, "bytes": 41}
    older = {"schema_version": 1, "created_by": "saq-qat 0.0.1", "models": {"openvino": graph}}
    (folder / "manifest.json").write_text(json.dumps({**older, "golden": {}, "gate": {}, "recipe": {}}))
    (folder / "model.openvino.onnx").write_text("of a target that the recipe names no more")
    export_run(run, folder, size=SIZE)
    assert sorted(contents(folder)) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_never_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"no bundle.*Name a new folder"):
        export_run(run, tmp_path, size=SIZE)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("failing", ["write_synced", "swap"])
def test_a_failure_while_writing_keeps_the_old_bundle_and_leaves_nothing(
    failing: str, run: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)

    def full_disk(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(bundle_module, failing, full_disk)
    with pytest.raises(SaqError, match=r"No space left on device.*untouched"):
        export_run(run, folder, size=SIZE)
    assert contents(folder) == contents(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_old_bundle_comes_back_if_the_new_one_cannot_be_moved(
    bundle: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    rename = Path.rename

    def refuse(self: Path, target: Any) -> Path:
        if self.name == "new":
            raise OSError(5, os.strerror(5))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(SaqError, match="cannot be written"):
        export_run(run, folder, size=SIZE)
    assert contents(folder) == contents(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_interrupt_while_writing_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle_module, "swap", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_run(run, tmp_path / "bundle", size=SIZE)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def _failing_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Proof:
        proof = prove(*arguments)
        first, *rest = proof.comparisons
        return replace(
            proof, comparisons=(replace(first, passed=False, mismatches=1, detail="first at a.codes"), *rest)
        )

    monkeypatch.setattr(run_module, "prove", fail)


@pytest.mark.usefixtures("_failing_proof")
def test_a_failed_gate_writes_nothing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        GateError, match=r"Not proved, so no bundle was written.*first at a\.codes.*--allow-failed-gate"
    ):
        export_run(run, tmp_path / "bundle", size=SIZE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_failing_proof")
def test_an_allowed_failure_is_marked_and_refused_by_the_runtime(run: Path, tmp_path: Path) -> None:
    exported = export_run(run, tmp_path / "bundle", size=SIZE, allow_failed_gate=True)
    assert (exported.manifest.gate.passed, exported.manifest.gate.allowed_failed) == (False, True)
    assert not exported.proof.passed
    with pytest.raises(ModelError, match="gate"):
        Session.load(tmp_path / "bundle")
    Session.load(tmp_path / "bundle", allow_failed_gate=True).close()


def test_a_failed_soft_comparison_does_not_stop_the_bundle(run: Path, tmp_path: Path) -> None:
    exported = export_run(run, tmp_path / "bundle", size=SIZE)
    assert exported.proof.passed
    soft = [comparison for comparison in exported.proof.comparisons if not comparison.hard]
    assert len(soft) == 3
    worse = replace(exported.proof, comparisons=(*exported.proof.comparisons, replace(soft[0], passed=False)))
    assert worse.passed


def test_a_threshold_of_the_recipe_that_fails_writes_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers_change(*arguments: Any) -> Proof:
        proof = prove(*arguments)
        flips = replace(proof.agreement, flips=proof.agreement.images)
        others = [comparison for comparison in proof.comparisons if comparison.name != FAKE_QUANT_COMPARISON]
        comparisons = (*others, *agreement_comparisons(flips, Thresholds())[1:])
        return replace(proof, agreement=flips, comparisons=comparisons)

    monkeypatch.setattr(run_module, "prove", answers_change)
    with pytest.raises(
        GateError, match=rf"Not proved.*{FAKE_QUANT_COMPARISON}.*100\.0 % of answers differ.*deploy"
    ):
        export_run(run, tmp_path / "bundle", size=SIZE)
    assert list(tmp_path.iterdir()) == []
    exported = export_run(run, tmp_path / "bundle", size=SIZE, allow_failed_gate=True)
    assert (exported.manifest.gate.passed, exported.manifest.gate.allowed_failed) == (False, True)


def test_a_full_precision_run_is_refused_with_the_fix(tmp_path: Path) -> None:
    run_training(small_recipe("quant=null", "train.stages.0.kind=float"), tmp_path / "run")
    with pytest.raises(ArtifactError, match=r"full precision.*Add a quant section"):
        lower_run(tmp_path / "run", "last")


def test_a_run_that_stopped_in_its_float_stage_is_refused_with_that_stage(tmp_path: Path) -> None:
    two = "train.stages=[{kind: float, epochs: 3, lr: 0.01}, {kind: quantized, epochs: 1, lr: 0.01}]"
    training = tmp_path / "run"
    with pytest.raises(TrainingStoppedError):
        run_training(small_recipe(two), training, on_progress=sigterm_at(1))
    with pytest.raises(ArtifactError) as refused:
        lower_run(training, "last")
    message = str(refused.value)
    assert "stage 1 of 2 (float)" in message and f"saq-qat train --resume {training}" in message
    assert "full precision" not in message and "quant section" not in message


def test_missing_parents_are_made(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "bundle"
    export_run(run, folder, size=SIZE)
    assert Manifest.load(folder).name == "small"
