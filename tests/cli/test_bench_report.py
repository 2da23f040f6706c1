"""bench and report from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saq_qat.train.discard import check_deletable
from saq_qat_export.proof.prove import ProofSize
from saq_qat_export.run import export_run
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.tensorrt.driver import driver_status
from tests.report.networks import RECIPE, trained_run
from tests.runtime.fake_tensorrt import PLAN, record_of

SaqQat = Callable[..., int]
QUICK = ("--seconds", "0.02", "--batch", "2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = trained_run(tmp_path_factory.mktemp("runs") / "tiny")
    export_run(folder, folder / "export", size=ProofSize(2, 40), allow_failed_gate=True)
    return folder


def test_bench_writes_what_report_then_shows(
    saq_qat: SaqQat, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saq_qat("bench", str(run), "--no-baselines", *QUICK) == 0
    assert "Latency at batch 2, 1 thread" in capsys.readouterr().out
    assert (run / "bench" / "bench.json").is_file() and (run / "bench" / "samples.json").is_file()
    assert saq_qat("report", str(run)) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("INCOMPLETE: ")
    assert "Latency at batch 2" in shown
    assert (run / "report" / "report.txt").read_text() in shown


def test_bench_says_which_step_it_is_at_and_how_long_measuring_takes(
    saq_qat: SaqQat, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("saq_qat.cli.console.LINE_SECONDS", 0.0)
    both = ("--seconds", "0.02", "--batch", "1", "--batch", "2")
    assert saq_qat("bench", str(run), "--no-baselines", *both) == 0
    told = [line.partition(" (")[0] for line in capsys.readouterr().err.splitlines()]
    assert told[1:5] == [
        "bench: 1/4 loading the bundle, at least 2 s left",
        "bench: 2/4 top-1 of the engines on 40 images, at least 2 s left",
        "bench: 3/4 latency at batch 1, at least 2 s left",
        "bench: 4/4 latency at batch 2, at least 1 s left",
    ]
    check_deletable(run)  # nothing that bench and report write counts as a user's


def test_report_prints_the_json_it_writes(
    saq_qat: SaqQat, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saq_qat("report", str(run), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((run / "report" / "report.json").read_text())


def test_bench_of_a_bundle_writes_nothing_into_it(
    saq_qat: SaqQat, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in (run / "export").iterdir()}
    assert saq_qat("bench", "--bundle", str(run / "export"), "--json", *QUICK) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["candidates"][0]["integer"]["integer"] == 3
    assert {file: file.read_bytes() for file in (run / "export").iterdir()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", "b"),
        ("a", "--bundle", "b"),
        ("--batch", "0"),
        ("--batch", "1000000000"),
        ("--threads", "0"),
        ("--seconds", "nan"),
        ("--seconds", "inf"),
    ],
)
def test_wrong_usage_of_bench_exits_with_2(saq_qat: SaqQat, arguments: tuple[str, ...]) -> None:
    assert saq_qat("bench", *arguments) == 2


def test_what_is_missing_exits_with_3(
    saq_qat: SaqQat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saq_qat("bench", "--bundle", str(tmp_path)) == 3
    assert saq_qat("report", str(tmp_path)) == 3
    (tmp_path / "resolved.yaml").write_text(RECIPE)
    capsys.readouterr()
    assert saq_qat("bench", str(tmp_path)) == 3
    assert "saq-qat export" in capsys.readouterr().err


def test_training_steps_are_timed_side_by_side(
    saq_qat: SaqQat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    before = torch.get_num_threads()
    given = ("bench", "--train", str(recipe), "train.batch_size=4", "train.compile=off", "--threads", "1")
    try:
        assert saq_qat(*given) == 0
        shown = capsys.readouterr().out
        assert saq_qat(*given, "--json") == 0
    finally:
        torch.set_num_threads(before)
    for part in (
        "SAQ, efficient (tau 4)",
        "SAQ / quantization-aware",
        "batches of 4 images",
        "1 thread of a",
    ):
        assert part in shown
    found = json.loads(capsys.readouterr().out)
    assert found["threads"] == 1 and not found["compiled"] and found["goals"] == {}
    assert found["ratios"]["saq_to_quantized"] == found["saq"]["seconds"] / found["quantized"]["seconds"]


def test_training_batches_are_timed_alone(
    saq_qat: SaqQat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    assert saq_qat("bench", "--data", str(recipe), "train.batch_size=4") == 0
    shown = capsys.readouterr().out
    for part in ("a batch of 4 images", "images/s", "an epoch of", "mean of 50 batches"):
        assert part in shown
    assert saq_qat("bench", "--data", str(recipe), "train.batch_size=4", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images_per_second"] == pytest.approx(4 / found["batch"])
    assert found["epoch"] == pytest.approx(found["batch"] * found["epoch_batches"])
    assert found["first"] > 0


def test_an_engine_that_the_bundle_has_no_model_for_exits_with_3(
    saq_qat: SaqQat, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saq_qat("bench", str(run), "--backend", "tensorrt", *QUICK) == 3
    assert "deploy.targets" in capsys.readouterr().err


@pytest.mark.skipif(driver_status().usable, reason="there is a GPU here")
def test_a_bundle_for_tensorrt_on_a_machine_without_a_gpu_exits_with_4_and_the_reason(
    saq_qat: SaqQat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = ("deploy.thresholds.max_top1_drop=100.0", "deploy.thresholds.max_flip_rate=1.0")
    folder = trained_run(tmp_path / "gpu", *wide, "deploy.targets=[tensorrt]")
    export_run(folder, folder / "export", size=ProofSize(2, 40), allow_failed_gate=True)
    for backend in ("auto", "tensorrt", "tensorrt-rtx"):
        assert saq_qat("bench", str(folder), "--backend", backend, *QUICK) == 4
        assert "saq-qat-runtime build" in capsys.readouterr().err
    record = record_of(source=Manifest.load(folder / "export").models["tensorrt"])
    (folder / "export" / "model.plan").write_bytes(PLAN)
    (folder / "export" / "model.plan.json").write_text(record.to_json())
    for backend in ("auto", "tensorrt"):
        assert saq_qat("bench", str(folder), "--backend", backend, *QUICK) == 4
        assert "There is no CUDA driver" in capsys.readouterr().err
    assert saq_qat("report", str(folder)) == 0
    assert "TensorRT engines" in capsys.readouterr().out


def test_report_writes_a_page_and_a_card_and_lays_runs_side_by_side(
    saq_qat: SaqQat, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert saq_qat("report", str(run), "--html", "--output", str(page), "--json") == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(run)
    assert page.read_text().startswith("<!doctype html>")
    assert (tmp_path / "model_card.md").read_text().startswith("---\nlibrary_name: saq-qat\n")
    assert saq_qat("report", str(run), "--html") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("INCOMPLETE: ") and "model_card.md" in shown and "Accuracy" not in shown
    assert saq_qat("report", "--compare", str(run), str(run)) == 0
    assert str(run / "report" / "compare.html") in capsys.readouterr().out
    assert "2 runs of saq-qat" in (run / "report" / "compare.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (("a", "b"), "--compare"),
        (("a", "--output", "x.html"), "--html"),
        (("--compare", "a", "b", "--json"), "Drop --json"),
    ],
)
def test_wrong_usage_of_report_exits_with_2(
    saq_qat: SaqQat, arguments: tuple[str, ...], fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saq_qat("report", *arguments) == 2
    assert fix in capsys.readouterr().err


def test_a_comparison_of_one_run_exits_with_2(saq_qat: SaqQat, run: Path) -> None:
    assert saq_qat("report", "--compare", str(run)) == 2
