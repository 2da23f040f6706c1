"""A figure is shown beside the checkpoint and the bundle it was measured on, and beside nothing else."""

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path

import pytest

from saq_qat.report.accuracy import accuracy_rows
from saq_qat.report.collect import Collected, collect
from saq_qat.report.evaluation import Evaluation, write_evaluation
from saq_qat.report.report_json import report_json
from saq_qat.report.report_text import report_text
from saq_qat.report.verdict import judge_run
from saq_qat.train.checkpoint import read_checkpoint, write_checkpoint
from saq_qat.train.evaluate import Accuracy
from saq_qat_runtime.bench.record import write_bench
from saq_qat_runtime.errors import ResultError
from tests.report.conftest import digests, measured, prove_and_measure

OTHER = "ab12cd34ef56" + 52 * "0"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("checkpoint", "about checkpoint ab12cd34ef56..., this bundle was exported from {checkpoint}..."),
        ("bundle", "about bundle ab12cd34ef56..., this one is {bundle}..."),
    ],
)
def test_proof_and_measurement_of_something_else_are_named_and_not_shown(
    complete: Collected, change: str, says: str
) -> None:
    own = dict(zip(("checkpoint", "bundle"), digests(complete.run), strict=True))
    prove_and_measure(complete.run, **(own | {change: OTHER}))
    known = collect(complete.run)
    assert (known.proof, known.bench) == (None, None)
    says = says.format(**{name: digest[:12] for name, digest in own.items()})
    verdict = judge_run(known)
    assert verdict.status == "INCOMPLETE"
    assert f"verify.json is {says}: run saq-qat verify" in verdict.reason
    assert f"bench.json is {says}: run saq-qat bench" in verdict.reason
    text, values = "\n".join(report_text(known)), report_json(known)
    assert "1,000 codes" not in text and "3.00x" not in text
    assert [each["file"] for each in values["set_aside"]] == ["report/verify.json", "bench/bench.json"]
    assert values["verdict"]["status"] == "INCOMPLETE"
    assert (values["proof"], values["bench"]) == (None, None)


def test_a_result_belongs_to_its_bundle_whatever_the_clock_says(complete: Collected) -> None:
    later = (complete.run / "report" / "verify.json").stat().st_mtime_ns + 10**9
    os.utime(complete.run / "export" / "manifest.json", ns=(later, later))
    assert judge_run(collect(complete.run)).status == "PASS"


def test_a_proof_of_a_bundle_that_is_gone_is_not_shown(complete: Collected) -> None:
    shutil.rmtree(complete.run / "export")
    known = collect(complete.run)
    assert known.proof is None and known.bench is None
    assert any("verify.json is about bundle" in line for line in report_text(known))


def test_a_bundle_of_a_checkpoint_that_the_run_does_not_have_is_not_passed(complete: Collected) -> None:
    network = read_checkpoint(complete.run / "checkpoints" / "last")
    moved = {name: value + 1 if value.is_floating_point() else value for name, value in network.model.items()}
    for name in ("best", "last"):
        write_checkpoint(complete.run / "checkpoints" / name, dataclasses.replace(network, model=moved))
    verdict = judge_run(collect(complete.run))
    assert verdict.status == "INCOMPLETE"
    assert f"exported from checkpoint {digests(complete.run)[0][:12]}" not in verdict.reason
    assert "which the run does not have: saq-qat export" in verdict.reason


def test_the_report_names_what_its_figures_are_about(complete: Collected) -> None:
    checkpoint, bundle = digests(complete.run)
    values = report_json(complete)
    assert (values["checkpoint_sha256"], values["bundle_sha256"]) == (checkpoint, bundle)
    line = report_text(complete)[2]
    assert line.startswith(f"bundle {bundle[:12]}... of checkpoint best (step 8, deployed top-1 ")
    assert line.endswith(f"{checkpoint[:12]}...")


@pytest.mark.parametrize(
    ("file", "value", "command"),
    [
        ("report/verify.json", {"comparisons": [], "agreement": {}, "kernels": {}}, "saq-qat verify"),
        ("bench/bench.json", {"schema_version": 2, "model_sha256": "0" * 64}, "saq-qat bench"),
        ("report/eval.json", {"schema_version": 0}, "saq-qat eval"),
        ("export/manifest.json", {"schema_version": 2}, "export the bundle again"),
    ],
)
def test_files_of_an_older_version_are_set_aside_with_the_command_that_makes_them_again(
    complete: Collected, file: str, value: dict[str, object], command: str
) -> None:
    (complete.run / file).write_text(json.dumps(value))
    known = collect(complete.run)
    (own,) = [each for each in known.set_aside if each.file == file]
    assert command in own.reason
    text = "\n".join(report_text(known))
    assert own.reason in text
    assert text.startswith("PASS" if file.endswith("eval.json") else "INCOMPLETE")


def evaluation(sha256: str) -> Evaluation:
    network, deployed = Accuracy(71.0, 95.0, 0.5, 40), Accuracy(68.0, 94.0, 0.6, 40)
    return Evaluation(1, "2026-01-01", sha256, None, "best", 8, "quantized", network, deployed)


def test_an_evaluation_is_shown_beside_its_own_checkpoint_alone(run: Path) -> None:
    path = run / "report" / "eval.json"
    write_evaluation(evaluation(digests(run)[0]), path)
    known = collect(run)
    assert known.evaluation == evaluation(digests(run)[0])
    rows = {row.form: row for row in accuracy_rows(known)}
    assert (rows["fake-quant"].top1, rows["fake-quant"].top5, rows["deploy view"].top1) == (71.0, 95.0, 68.0)
    assert rows["deploy view"].source == "eval"
    write_evaluation(evaluation(OTHER), path)
    known = collect(run)
    rows = {row.form: row for row in accuracy_rows(known)}
    assert known.evaluation is None and rows["fake-quant"].top1 != 71.0
    assert rows["fake-quant"].source.startswith("training, checkpoint best (step 8)")
    assert "eval.json is about checkpoint ab12cd34ef56..." in "\n".join(report_text(known))


def test_a_number_that_is_not_finite_leaves_the_older_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    write_evaluation(evaluation(OTHER), path)
    before = path.read_bytes()
    broken = dataclasses.replace(evaluation(OTHER), network=Accuracy(10.0, 50.0, math.nan, 40))
    with pytest.raises(ResultError, match=r"network\.loss is nan"):
        write_evaluation(broken, path)
    broken_bench = dataclasses.replace(measured(), seconds=math.inf)
    with pytest.raises(ResultError, match="seconds is inf"):
        write_bench(broken_bench, {}, tmp_path)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["eval.json", "samples.json"]
