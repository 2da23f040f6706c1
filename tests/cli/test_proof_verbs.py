"""check, export and verify from the command line."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saq_qat.report.predictions import read_predictions
from saq_qat.train.checkpoint import read_checkpoint, write_checkpoint
from saq_qat.train.discard import check_deletable
from saq_qat_runtime.bundle.files import file_sha256
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.session import Session
from tests.report.networks import RECIPE, trained_run

SaqQat = Callable[..., int]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("runs") / "tiny")


def test_check_prints_the_plan_and_counts_integers(saq_qat: SaqQat, recipe: Path, capsys: Captured) -> None:
    assert saq_qat("check", str(recipe)) == 0
    shown = capsys.readouterr().out
    assert "planned as integer: 3/3 for onnxruntime\n" in shown
    assert "-15..15 odd" in shown and "0..15" in shown and "ORT006" in shown


def test_check_needs_no_data_when_told_the_classes(saq_qat: SaqQat, recipe: Path) -> None:
    folder = ("data={kind: imagefolder, root: nowhere, image_size: 8}",)
    assert saq_qat("check", str(recipe), *folder) == 3
    assert saq_qat("check", str(recipe), *folder, "--classes", "7") == 0


def test_check_fails_on_what_the_target_cannot_run(saq_qat: SaqQat, recipe: Path, capsys: Captured) -> None:
    override = "quant.grid=paper"
    assert saq_qat("check", str(recipe), override) == 2
    assert "ORT003" in capsys.readouterr().out
    assert saq_qat("check", str(recipe), override, "deploy.targets=[]") == 0
    assert "no deployment target" in capsys.readouterr().out


def test_a_full_precision_recipe_has_no_plan(saq_qat: SaqQat, recipe: Path, capsys: Captured) -> None:
    stages = "train.stages=[{kind: float, epochs: 1, lr: 0.1}]"
    assert saq_qat("check", str(recipe), "quant=null", stages) == 0
    assert "full precision" in capsys.readouterr().out


def test_export_then_verify_prove_the_run_and_the_bundle_serves(
    saq_qat: SaqQat, run: Path, capsys: Captured
) -> None:
    assert saq_qat("export", str(run), "--onnx", "--code-images", "2") == 0
    shown = capsys.readouterr().out
    assert "integer (3/3 products on integer kernels)" in shown and "FAIL" not in shown
    with Session.load(run / "export") as session:
        session.self_test()
        assert session.run(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 10)
    assert saq_qat("verify", str(run), "--code-images", "2") == 0
    assert "first divergence: none" in capsys.readouterr().out
    proof = json.loads((run / "report" / "verify.json").read_text())
    assert proof["bundle_sha256"] == file_sha256(run / "export" / "manifest.json")
    hard = [found for found in proof["comparisons"] if found["hard"]]
    exact = [found["mismatches"] for found in hard if not found["name"].startswith("top-1")]
    assert exact == [0] * 6


def test_verify_refuses_a_bundle_of_other_integers(saq_qat: SaqQat, run: Path, capsys: Captured) -> None:
    other = trained_run(run.parent / "other", "seed=1")
    assert saq_qat("export", str(other), "--code-images", "1", "--allow-failed-gate") == 0
    assert saq_qat("verify", str(run), "--bundle", str(other / "export")) == 3
    exported = file_sha256(other / "checkpoints" / "best" / "model.safetensors")
    own = file_sha256(run / "checkpoints" / "best" / "model.safetensors")
    message = capsys.readouterr().err
    assert f"exported from checkpoint {exported[:12]}..." in message and f"best {own[:12]}..." in message


def test_the_best_checkpoint_is_exported_verified_and_evaluated_unless_told_otherwise(
    saq_qat: SaqQat, run: Path, tmp_path: Path, capsys: Captured
) -> None:
    """Of a run whose last epoch is another network than its best."""
    run = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("export", "report"))
    last = run / "checkpoints" / "last"
    saved = read_checkpoint(last)
    state = {name: value * 1.5 if name == "fc.bias" else value for name, value in saved.model.items()}
    progress = {**saved.progress, "accuracy": {"top1": 1.0}}
    write_checkpoint(last, replace(saved, model=state, progress=progress))
    best, other = (file_sha256(run / "checkpoints" / name / "model.safetensors") for name in ("best", "last"))
    assert best != other
    assert saq_qat("export", str(run), "--code-images", "1") == 0
    assert "; last (step 8) scores: top-1 1.00 %" in capsys.readouterr().out
    assert Manifest.load(run / "export").checkpoint_sha256 == best
    assert saq_qat("verify", str(run), "--code-images", "1", "--checkpoint", "last") == 3
    assert "Verify it with --checkpoint best" in capsys.readouterr().err
    assert not (run / "report" / "verify.json").exists()
    second = ("--checkpoint", "last", "--output", str(run / "second"))
    assert saq_qat("export", str(run), "--code-images", "1", *second) == 0
    assert saq_qat("verify", str(run), "--code-images", "1", "--bundle", str(run / "second")) == 0
    assert "checkpoint last (step 8, top-1 1.00 %); best (step 8) scores: deployed" in capsys.readouterr().out
    proof = json.loads((run / "report" / "verify.json").read_text())
    assert proof["checkpoint_sha256"] == other
    assert proof["bundle_sha256"] == file_sha256(run / "second" / "manifest.json")
    assert saq_qat("report", str(run)) == 0
    about = f"verify.json is about checkpoint {other[:12]}..., this bundle was exported from {best[:12]}..."
    assert about in " ".join(capsys.readouterr().out.split())
    assert saq_qat("eval", str(run)) == 0
    assert json.loads((run / "report" / "eval.json").read_text())["checkpoint_sha256"] == best


def test_verify_names_a_threshold_that_does_not_hold(
    saq_qat: SaqQat, tmp_path: Path, capsys: Captured
) -> None:
    strict = trained_run(tmp_path / "strict", "quant.weight.bits=2", "deploy.refine_bias=false")
    resolved = strict / "resolved.yaml"
    assert saq_qat("export", str(strict), "--code-images", "1") == 0
    resolved.write_text(resolved.read_text().replace("max_top1_drop: 100.0", "max_top1_drop: 0.0"))
    resolved.write_text(resolved.read_text().replace("max_flip_rate: 1.0", "max_flip_rate: 0.0"))
    code = saq_qat("verify", str(strict), "--code-images", "1")
    flips = json.loads((strict / "report" / "verify.json").read_text())["agreement"]["flips"]
    assert code == (1 if flips else 0)
    words = "top-1 of fake-quant network = ONNX Runtime ("
    assert (f"Not proved: {words}" in capsys.readouterr().err) == bool(flips)
    assert saq_qat("export", str(strict), "--code-images", "1", "--top1-images", "0") == code
    assert (f"Not proved, so no bundle was written: {words}" in capsys.readouterr().err) == bool(flips)


def test_a_run_for_tensorrt_alone_is_not_held_against_kernels_of_onnx_runtime(
    saq_qat: SaqQat, tmp_path: Path, capsys: Captured
) -> None:
    run = trained_run(tmp_path / "gpu", "deploy.targets=[tensorrt]")
    assert saq_qat("export", str(run), "--code-images", "1", "--top1-images", "8") == 0
    shown = capsys.readouterr().out
    assert "counted in its engine's own list of layers" in shown
    assert "products on integer kernels" not in shown
    assert saq_qat("verify", str(run), "--code-images", "1", "--top1-images", "8") == 0
    capsys.readouterr()
    assert saq_qat("report", str(run)) == 0
    assert "not to be called integer" not in capsys.readouterr().out


def test_export_without_onnx_or_without_a_run_says_what_to_do(
    saq_qat: SaqQat, run: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert saq_qat("export", str(run), "--no-onnx") == 2
    assert saq_qat("export", str(tmp_path)) == 3
    assert "saq-qat train" in capsys.readouterr().err


def test_eval_tells_of_classes_and_writes_the_answer_to_each_image(
    saq_qat: SaqQat, run: Path, capsys: Captured
) -> None:
    assert saq_qat("eval", str(run)) == 0
    shown = capsys.readouterr().out
    assert "top-1 % of each class" in shown and "commonest wrong answers" in shown
    found = json.loads((run / "report" / "eval.json").read_text())
    answers = read_predictions(run / "report" / "predictions.csv", found["predictions_sha256"])
    assert answers.images == tuple(map(str, range(40))) and answers.deployed is not None
    for form, own in (("network", answers.network), ("deployed", answers.deployed)):
        assert 100 * np.mean(own == answers.labels) == pytest.approx(found[form]["top1"])
    assert [each["name"] for each in found["classes"]] == [str(digit) for digit in range(10)]
    assert sum(each["images"] for each in found["classes"]) == 40


def test_json_is_one_document_and_the_file_that_was_written(
    saq_qat: SaqQat, run: Path, tmp_path: Path, capsys: Captured
) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    assert saq_qat("export", str(own), "--code-images", "1") == 0
    capsys.readouterr()
    for command, file in (("verify", "verify.json"), ("eval", "eval.json")):
        assert saq_qat(command, str(own), "--json", "--quiet") == 0
        shown = capsys.readouterr()
        assert shown.out == (own / "report" / file).read_text() and shown.err == ""
    check_deletable(own)  # nothing that commands write into a run counts as a user's


def test_check_prints_its_findings_as_one_document(saq_qat: SaqQat, recipe: Path, capsys: Captured) -> None:
    assert saq_qat("check", str(recipe), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] and [layer["name"] for layer in found["plan"]["layers"]] == [
        "conv1",
        "conv2",
        "fc",
    ]
    assert {"ORT006"} <= {finding["rule"] for finding in found["findings"]}
    assert found["planned_integers"] == ["planned as integer: 3/3 for onnxruntime"]
    assert saq_qat("check", str(recipe), "quant.grid=paper", "--json") == 2
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert not found["passed"] and "error" in {finding["level"] for finding in found["findings"]}
    assert "stop it from being deployed" in shown.err
    stages = "train.stages=[{kind: float, epochs: 1, lr: 0.1}]"
    assert saq_qat("check", str(recipe), "quant=null", stages, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["plan"], found["findings"], found["passed"]) == (None, [], True)


def test_check_of_a_graph_prints_one_document(
    saq_qat: SaqQat, run: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert saq_qat("export", str(run), "--code-images", "1", "--output", str(tmp_path / "bundle")) == 0
    capsys.readouterr()
    file = tmp_path / "bundle" / "model.onnx"
    code = saq_qat("check", str(file), "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(file) and found["passed"] == (code == 0)
    assert set(found["targets"]) == {"tensorrt", "onnxruntime"}
    assert found["targets"]["onnxruntime"]["notes"] == [
        f"{file}: 0 of 3 integer products exceed the pair bound for target onnxruntime."
    ]
