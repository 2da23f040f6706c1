"""One report for a run at any point of its life; what is missing is named with its command."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.errors import ArtifactError
from saq_qat.report.accuracy import accuracy_rows, flip_interval
from saq_qat.report.bench_record import write_bench
from saq_qat.report.collect import Collected, collect
from saq_qat.report.report_json import report_json
from saq_qat.report.report_text import report_text
from saq_qat.report.verdict import judge_run
from saq_qat_export.ladder import Agreement, Flip, Rung
from saq_qat_export.proof import Proof
from tests.report.conftest import INTEGER, measured


def proof(*, passed: bool = True, flips: int = 1) -> Proof:
    rung = Rung("integer reference = ONNX Runtime", True, passed, 1000, 0 if passed else 7, "")
    listed = (Flip(3, 1, 1, 2),) if flips else ()
    return Proof((rung,), Agreement(40, 90.0, 90.0, 87.5, 0, flips, listed), INTEGER)


@pytest.fixture
def run(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported run, free to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "run"))


@pytest.fixture
def complete(run: Path) -> Collected:
    (run / "report").mkdir()
    (run / "report" / "verify.json").write_text(json.dumps(dataclasses.asdict(proof())))
    digest = collect(run).manifest.models["onnxruntime"].sha256  # type: ignore[union-attr]
    write_bench(measured(sha256=digest), {}, run / "bench")
    return collect(run)


def test_a_complete_run_passes_with_every_fact_in_the_first_line(complete: Collected) -> None:
    text = report_text(complete)
    first = text[0]
    for fact in ("PASS", "0 of 1,000 codes", "87.50 %", "1 of 40", "3.00x the speed", "3/3 products"):
        assert fact in first
    assert "nothing" in "".join(text[text.index("Not measured") + 1])


def test_accuracies_stand_side_by_side(complete: Collected) -> None:
    rows = {row.form: row for row in accuracy_rows(complete)}
    assert list(rows)[:4] == ["float", "fake-quant", "deploy view", "ONNX Runtime"]
    assert rows["float"].top1 is not None
    assert (rows["fake-quant"].top1, rows["ONNX Runtime"].top1) == (90.0, 87.5)
    assert rows["ONNX Runtime"].flips == 1
    assert rows["static int8, ONNX Runtime"].top1 == 91.0
    text = "\n".join(report_text(complete))
    assert "image 3: 1 -> 2 (labelled 1)" in text


def test_a_run_without_a_bundle_is_incomplete_and_names_the_next_command(run: Path) -> None:
    shutil.rmtree(run / "export")
    known = collect(run)
    verdict = judge_run(known)
    assert verdict.status == "INCOMPLETE"
    assert f"saq-qat export {run}" in verdict.reason
    text = "\n".join(report_text(known))
    assert "not measured: run saq-qat export, then saq-qat verify" in text
    assert f"not measured: saq-qat bench {run}" in text


def test_a_failed_rung_fails_the_run_whatever_else_is_fine(complete: Collected) -> None:
    known = dataclasses.replace(complete, proof=proof(passed=False))
    assert judge_run(known).status == "FAIL"
    assert "integer reference = ONNX Runtime (7)" in judge_run(known).reason


def test_measurements_older_than_the_bundle_do_not_count(complete: Collected) -> None:
    run = complete.run
    write_bench(measured(sha256="f" * 64), {}, run / "bench")
    bundle = run / "export" / "manifest.json"
    later = (run / "report" / "verify.json").stat().st_mtime_ns + 10**9
    os.utime(bundle, ns=(later, later))
    verdict = judge_run(collect(run))
    assert verdict.status == "INCOMPLETE"
    assert "verified before the last export" in verdict.reason
    assert "latency is that of an older bundle" in verdict.reason


def test_a_slow_bundle_is_called_slow_in_the_first_line(complete: Collected) -> None:
    digest = complete.bench.model_sha256  # type: ignore[union-attr]
    known = dataclasses.replace(complete, bench=measured(60.0, sha256=digest))
    assert "batch 1: SLOWER than float32 on ONNX Runtime: 0.50x its speed" in report_text(known)[0]


def test_json_is_strict_and_holds_every_number(complete: Collected) -> None:
    values = json.loads(json.dumps(report_json(complete), allow_nan=False))
    assert values["verdict"]["status"] == "PASS"
    assert values["proof"]["agreement"]["flips"] == 1
    assert values["bench"]["timings"][0]["latency"]["count"] == 120
    assert values["bundle"]["sizes"]["parameters"] > 0
    assert [row["form"] for row in values["accuracy"]][:2] == ["float", "fake-quant"]
    assert values["epochs"][-1]["event"] == "end"


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("report/verify.json", "saq-qat verify"),
        ("bench/bench.json", "saq-qat bench"),
        ("env.json", "--resume"),
    ],
)
def test_a_damaged_file_is_named_with_the_command_that_mends_it(
    complete: Collected, file: str, remedy: str
) -> None:
    (complete.run / file).write_text("[")
    with pytest.raises(ArtifactError, match=remedy) as refused:
        collect(complete.run)
    assert Path(file).name in str(refused.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no resolved\.yaml"):
        collect(tmp_path)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_the_flip_rate_holds_the_rate(counts: tuple[int, int]) -> None:
    flips, images = counts
    low, high = flip_interval(flips, images)
    assert 0 <= low <= flips / images + 1e-12 and flips / images - 1e-12 <= high <= 1
    assert high - low <= 2 / images**0.5


def test_the_interval_of_no_flips_is_wilsons() -> None:
    assert flip_interval(0, 100) == pytest.approx((0.0, 0.0369935), abs=1e-6)
