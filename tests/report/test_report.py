"""One report for a run at any point of its life; what is missing is named with its command."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.errors import ArtifactError
from saq_qat.report.accuracy import accuracy_rows, flip_interval
from saq_qat.report.collect import Collected, collect
from saq_qat.report.network_text import layer_lines, tensor_lines
from saq_qat.report.report_json import report_json
from saq_qat.report.report_text import report_text
from saq_qat.report.training_text import training_lines
from saq_qat.report.verdict import judge_run
from saq_qat_export.bundle.graph_facts import GraphFacts
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.predictions import FAKE_QUANT_COMPARISON
from tests.report.conftest import measured, proof, words

EPOCH = {
    "stage": "quantized", "form": "quantized", "epoch": 1, "loss": 1.0, "top1": 90.0, "deploy_top1": 87.5
}  # fmt: skip  # one value a line is a page


def test_a_complete_run_passes_with_every_fact_before_the_first_empty_line(complete: Collected) -> None:
    text = report_text(complete)
    first = " ".join(text[: text.index("")])
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
    text = words(known)
    assert "not measured: run saq-qat export, then saq-qat verify" in text
    assert f"not measured: saq-qat bench {run}" in text


def test_a_failed_comparison_fails_the_run_whatever_else_is_fine(complete: Collected) -> None:
    known = dataclasses.replace(complete, proof=proof(passed=False))
    assert judge_run(known).status == "FAIL"
    assert "integer reference = ONNX Runtime (7)" in judge_run(known).reason


def test_a_run_without_a_deploy_stage_is_told_why_answers_changed(complete: Collected) -> None:
    flipped = dataclasses.replace(
        proof(flips=9), comparisons=(Comparison(FAKE_QUANT_COMPARISON, True, False, 40, 9, ""),)
    )
    known = dataclasses.replace(complete, proof=flipped)
    assert "biases were rounded" in "\n".join(report_text(known))
    assert "biases were rounded" in report_json(known)["fix"]
    learned = dataclasses.replace(known, log=({"event": "epoch", **EPOCH, "form": "deploy"},))
    assert "biases were rounded" not in "\n".join(report_text(learned))


def test_every_stage_of_a_training_has_its_line_and_the_teacher_its_own(complete: Collected) -> None:
    stages = [
        ("float", 1),
        ("float", 2),
        ("quantized", 1),
        ("quantized", 1),
        ("statistics", 1),
        ("deploy", 1),
    ]
    log = [{"event": "teacher", "source": "runs/large", "top1": 74.0, "top5": 98.0}]
    log += [{"event": "epoch", **EPOCH, "stage": stage, "epoch": epoch} for stage, epoch in stages]
    lines = training_lines(dataclasses.replace(complete, log=tuple(log)))
    assert lines[0] == "teacher runs/large: top-1 74.00 %, top-5 98.00 %"
    assert [line.split()[:2] for line in lines[2:-1]] == [
        ["float", "2"], ["quantized", "1"], ["quantized", "1"], ["statistics", "-"], ["deploy", "1"]
    ]  # fmt: skip  # one value a line is a page


def test_offsets_and_what_stays_float_are_told(complete: Collected) -> None:
    assert complete.manifest is not None
    names = [tensor.name for tensor in complete.manifest.tensors]
    first, second, *others = complete.manifest.tensors
    tensors = (first, dataclasses.replace(second, offset=-0.15), *others)
    manifest = dataclasses.replace(complete.manifest, tensors=tensors)
    graph = GraphFacts({"LayerNormalization": 25, "Softmax": 12})
    known = dataclasses.replace(complete, graph=graph, manifest=manifest)
    text = "\n".join(report_text(known))
    assert "37 operations of float32 between the codes: 25 LayerNormalization, 12 Softmax" in text
    (row,) = [line for line in tensor_lines(known) if line.startswith(f"{names[1]} ")]
    assert row.endswith("-0.15")
    assert "no operation between the codes" in "\n".join(report_text(complete))


def test_layers_of_equal_blocks_are_listed_once_unless_asked(complete: Collected) -> None:
    assert complete.manifest is not None
    layer = complete.manifest.layers[0]
    parts = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2")
    many = tuple(dataclasses.replace(layer, name=f"blocks.{i}.{p}") for i in range(12) for p in parts)
    known = dataclasses.replace(complete, manifest=dataclasses.replace(complete.manifest, layers=many))
    assert len(layer_lines(known)) == 2 + len(parts)
    assert len(layer_lines(known, fold=False)) == 1 + 12 * (1 + len(parts))


def test_a_slow_bundle_is_called_slow_before_the_first_empty_line(complete: Collected) -> None:
    text = report_text(dataclasses.replace(complete, bench=measured(60.0)))
    first = " ".join(text[: text.index("")])
    assert "batch 1: SLOWER than float32 on ONNX Runtime: 0.50x its speed" in first
    assert "static int8 on ONNX Runtime was FASTER at batch 1" in first


def test_a_bundle_faster_than_static_int8_is_not_said_to_be_slower(complete: Collected) -> None:
    assert "FASTER" in words(complete)  # 10 ms beside 9 ms
    assert "FASTER" not in words(dataclasses.replace(complete, bench=measured(8.0)))


def test_every_line_fits_80_columns_but_for_words_that_are_longer(complete: Collected) -> None:
    assert complete.manifest is not None
    layer = dataclasses.replace(
        complete.manifest.layers[0], integer=False, reason="its input is a sum that no quantizer reads " * 3
    )
    caution = "busy machine: 0.1 of 2 cores free for 1 thread"
    timings = tuple(dataclasses.replace(each, cautions=(caution,)) for each in measured().timings)
    known = dataclasses.replace(
        complete,
        bench=dataclasses.replace(measured(), timings=timings),
        manifest=dataclasses.replace(complete.manifest, layers=(layer, *complete.manifest.layers[1:])),
    )
    for full in (False, True):
        long = [line for line in report_text(known, full=full) if len(line) > 80]
        assert [line for line in long if len(line.split()) > 1] == []
    latency = report_text(known)[report_text(known).index("Latency") :]
    assert latency[1].strip().startswith(caution)


def test_a_last_checkpoint_that_is_worse_than_the_best_is_told(complete: Collected) -> None:
    log = [
        {"event": "epoch", **EPOCH, "epoch": epoch, "deploy_top1": top1}
        for epoch, top1 in ((1, 88.0), (2, 87.5))
    ]
    known = dataclasses.replace(complete, log=tuple(log))
    assert (
        "last is worse than best: deployed top-1 87.50 % after epoch 2 of the quantized stage, 88.00 %"
        in words(known)
    )
    assert "last is worse" not in words(dataclasses.replace(complete, log=tuple(log[:1])))
    longer = ({"event": "epoch", **EPOCH, "stage": "float", "epoch": 9, "deploy_top1": None}, *log[1:])
    assert "last is worse" not in words(dataclasses.replace(complete, log=longer))


def test_json_is_strict_and_holds_every_number(complete: Collected) -> None:
    values = json.loads(json.dumps(report_json(complete), allow_nan=False))
    assert values["verdict"]["status"] == "PASS"
    assert values["proof"]["agreement"]["flips"] == 1
    assert values["bench"]["timings"][0]["latency"]["count"] == 120
    assert values["bundle"]["sizes"]["parameters"] > 0
    assert [row["form"] for row in values["accuracy"]][:2] == ["float", "fake-quant"]
    assert values["epochs"][-1]["event"] == "end"


@pytest.mark.parametrize(
    ("file", "fix"),
    [
        ("report/verify.json", "saq-qat verify"),
        ("bench/bench.json", "saq-qat bench"),
        ("env.json", "--resume"),
    ],
)
def test_a_damaged_file_is_named_with_the_command_that_mends_it(
    complete: Collected, file: str, fix: str
) -> None:
    (complete.run / file).write_text("[")
    with pytest.raises(ArtifactError, match=fix) as refused:
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
