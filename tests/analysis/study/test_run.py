"""study.json is complete or absent, says what it is about, and is not believed of anything else."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from saq_qat.analysis.study.result import StudyResult, read_study_result, write_study_result
from saq_qat.analysis.study.run import StudyFailedError, report_study, run_study
from saq_qat.errors import ArtifactError, SaqError
from saq_qat.train.checkpoint import Position, read_checkpoint, write_checkpoint
from saq_qat.train.files import locked
from saq_qat_runtime.errors import ModelError, ResultError, VersionError
from tests.analysis.study.conftest import STUDY, Stub


@pytest.fixture(autouse=True)
def short_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of the page, which test_page.py reads: the last quantity of its arms."""
    monkeypatch.setattr(
        "saq_qat.analysis.study.run.page", lambda result: list(result.arms[-1].quantities)[-1]
    )


def study(stub: Stub) -> StudyResult:
    return run_study(stub.prepared, stub.command, lambda _: None)


def test_a_complete_study_has_every_number_with_the_digest_of_its_checkpoint(stub: Stub) -> None:
    result = study(stub)
    folder = stub.prepared.folder
    written = json.loads((folder / "study.json").read_text())
    assert written["schema_version"] == 3
    assert read_study_result(folder) == result
    runs = {(run["arm"], run["seed"]): run for run in written["runs"]}
    assert sorted(runs) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    for run in runs.values():
        hashes = json.loads((folder / run["run"] / "checkpoints/last/sha256.json").read_text())
        assert run["measured"]["checkpoint_sha256"] == hashes["model.safetensors"]
    (comparison,) = written["comparisons"]
    top1 = {key: run["measured"]["deployed"]["top1"] for key, run in runs.items()}
    differences = [top1["b", seed] - top1["a", seed] for seed in (0, 1)]
    assert comparison["quantities"]["deployed_top1"]["differences"] == differences
    assert comparison["kind"] == "equal epochs"
    assert "b - a" in (folder / "table.txt").read_text()
    assert (folder / "study.yaml").read_text() == STUDY


def test_a_study_with_a_failed_run_has_no_result_until_that_is_done(stub: Stub) -> None:
    stub.order("b-seed1", fail=4)
    with pytest.raises(StudyFailedError, match=r"b-seed1 \(exit code 4, .*b-seed1.log\)") as error:
        study(stub)
    assert error.value.exit_code == 4
    assert not (stub.prepared.folder / "study.json").exists()
    stub.forget_orders()
    study(stub)
    assert (stub.prepared.folder / "study.json").is_file()


def test_an_older_result_does_not_stand_beside_runs_that_are_still_to_do(stub: Stub) -> None:
    study(stub)
    stub.prepared = stub.prepare(STUDY.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    stub.lay_out()
    stub.order("a-seed2", fail=1)
    with pytest.raises(StudyFailedError):
        study(stub)
    assert not (stub.prepared.folder / "study.json").exists()


def test_a_run_that_diverged_has_no_numbers_and_is_named(stub: Stub) -> None:
    stub.order("b-seed1", fail=5)
    result = study(stub)
    assert [arm.diverged for arm in result.arms] == [(), (1,)]
    assert result.comparisons[0].quantities["deployed_top1"].missing == (1,)


def test_two_processes_do_not_run_one_study(stub: Stub) -> None:
    stub.prepared.folder.mkdir(parents=True)
    with locked(stub.prepared.folder), pytest.raises(SaqError, match="another process"):
        study(stub)


def test_a_number_that_is_not_finite_writes_nothing(stub: Stub, tmp_path: Path) -> None:
    result = study(stub)
    with pytest.raises(ResultError, match="image_passes"):
        write_study_result(
            replace(result, arms=(replace(result.arms[0], image_passes=float("nan")),)), tmp_path
        )
    assert not (tmp_path / "study.json").exists()


def test_every_quantity_of_every_arm_is_compared_lambda_max_among_them(stub: Stub) -> None:
    result = study(stub)
    assert result.comparisons[0].quantities["lambda_max"].differences == pytest.approx((0.1, 0.1))
    assert result.arms[0].quantities["flip_rate"].mean == pytest.approx(0.3)
    folder = stub.prepared.folder
    assert report_study(folder) == read_study_result(folder) == result
    assert "lambda max" in (folder / "table.txt").read_text()


def test_an_eigenvalue_that_did_not_converge_is_no_number_and_the_mean_says_of_how_many(stub: Stub) -> None:
    path = stub.folder / "a-seed0.measured"
    found = json.loads(path.read_text())
    found["curvature"]["converged"] = False
    path.write_text(json.dumps(found))
    result = study(stub)
    assert result.arms[0].quantities["lambda_max"].n == 1
    assert result.comparisons[0].quantities["lambda_max"].missing == (0,)
    assert "(1 of 2 seeds)" in (stub.prepared.folder / "table.txt").read_text()


def test_weights_that_changed_under_their_name_are_refused(stub: Stub) -> None:
    weights = stub.folder / "w.safetensors"
    weights.write_bytes(b"first")
    text = STUDY.replace(
        "recipe: recipe.yaml", f"recipe: recipe.yaml\noverrides: {{model.pretrained: {weights}}}"
    )
    prepared = stub.prepare(text)
    stub.lay_out(prepared)
    run_study(prepared, stub.command, lambda _: None)
    run_study(stub.prepare(text), stub.command, lambda _: None)
    weights.write_bytes(b"second")
    with pytest.raises(
        ArtifactError, match=r"w\.safetensors: runs of this study began from weights .* another name"
    ):
        run_study(stub.prepare(text), stub.command, lambda _: None)
    (prepared.folder / "inputs.json").write_text("[1]")
    with pytest.raises(ArtifactError, match=r"inputs\.json is damaged"):
        run_study(stub.prepare(text), stub.command, lambda _: None)


def test_a_study_says_that_its_folder_is_of_another_file(stub: Stub) -> None:
    study(stub)
    assert not stub.prepare().changes_another
    assert stub.prepare(STUDY.replace("[0, 1]", "[0, 1, 2]")).changes_another


@pytest.mark.parametrize("where", ["arms", "comparisons", "runs", "kind", "seeds", "image_passes"])
def test_a_result_whose_numbers_were_changed_is_not_reported(stub: Stub, where: str) -> None:
    study(stub)
    path = stub.prepared.folder / "study.json"
    found = json.loads(path.read_text())
    if where == "runs":
        found["runs"][0]["measured"]["deployed"]["top1"] = 99.5
    elif where == "arms":
        found["arms"][0]["quantities"]["deployed_top1"]["mean"] = 99.5
    elif where == "kind":
        found["comparisons"][0]["kind"] = "equal compute"
    elif where == "seeds":
        found["arms"][0]["seeds"] = [0]
    elif where == "image_passes":
        found["arms"][0]["image_passes"] *= 2
    else:
        found["comparisons"][0]["quantities"]["deployed_top1"]["p"] = 0.001
    path.write_text(json.dumps(found))
    with pytest.raises(ArtifactError, match=r"not those of its runs.*Run 'saq-qat study' again"):
        report_study(stub.prepared.folder)


def test_last_digits_that_another_version_computes_otherwise_are_no_change(stub: Stub) -> None:
    study(stub)
    path = stub.prepared.folder / "study.json"
    found = json.loads(path.read_text())
    for pair in (found["arms"][0]["quantities"], found["comparisons"][0]["quantities"]):
        pair["deployed_top1"]["mean"] *= 1 + 1e-14
    path.write_text(json.dumps(found))
    report_study(stub.prepared.folder)


def test_a_run_that_the_system_killed_is_told_so(stub: Stub) -> None:
    stub.order("b-seed1", fail=-9)
    with pytest.raises(StudyFailedError, match=r"b-seed1 \(killed by signal 9, as where memory runs out"):
        study(stub)


@pytest.mark.parametrize("damage", ["flipped", "removed"])
def test_a_run_whose_last_checkpoint_is_damaged_goes_on_instead_of_being_measured_earlier(
    stub: Stub, damage: str
) -> None:
    study(stub)
    (run,) = (stub.prepared.folder / "runs" / "a-seed0").iterdir()
    last = run / "checkpoints" / "last"
    before = replace(read_checkpoint(last), position=Position(stage=0, epoch=0, step=1))
    shutil.move(last, last.with_name("whole"))
    write_checkpoint(last, before)
    write_checkpoint(last, read_checkpoint(last.with_name("whole")))  # which keeps the one before
    if damage == "flipped":
        weights = last / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    else:
        shutil.rmtree(last)
    (stub.folder / "calls.jsonl").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the one before is taken
        study(stub)
    assert stub.kinds() == [("a-seed0", "resume")]


def test_the_report_refuses_runs_that_were_trained_on_since(stub: Stub) -> None:
    result = study(stub)
    folder = stub.prepared.folder
    write_study_result(
        replace(
            result,
            runs=tuple(
                replace(run, measured=replace(run.measured, checkpoint_sha256="f" * 64))
                for run in result.runs
                if run.measured is not None
            ),
        ),
        folder,
    )
    with pytest.raises(ArtifactError, match=r"is about its checkpoint ffffffffffff\.\.\., and it has"):
        report_study(folder)


def test_an_arm_is_believed_in_what_it_costs_where_no_run_of_it_lies(stub: Stub, tmp_path: Path) -> None:
    result = study(stub)
    write_study_result(
        replace(result, comparisons=(replace(result.comparisons[0], kind="neither"),)), tmp_path / "copied"
    )
    assert report_study(tmp_path / "copied").comparisons[0].kind == "neither"


def test_the_report_needs_no_runs(stub: Stub, tmp_path: Path) -> None:
    result = study(stub)
    write_study_result(result, tmp_path / "copied")
    assert report_study(tmp_path / "copied") == result


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, ArtifactError),
        ("{", ModelError),
        ('{"schema_version": 99}', VersionError),
        ('{"schema_version": 1}', ModelError),
    ],
)
def test_a_result_that_is_missing_or_damaged_is_said_so(
    tmp_path: Path, content: str | None, error: type[Exception]
) -> None:
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(error, match="saq-qat study"):
        read_study_result(tmp_path)


def test_the_schedule_of_an_arm_of_equal_compute_is_no_declared_difference(stub: Stub) -> None:
    text = STUDY.replace("a: {}", "a: {equal_compute: b}")
    prepared = stub.prepare(text)
    stub.lay_out(prepared)
    assert [arm.differs_in for arm in run_study(prepared, stub.command, lambda _: None).arms] == [(), ()]
