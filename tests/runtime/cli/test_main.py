"""The command `saq-qat-runtime`: what it offers, and how it ends."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from saq_qat_runtime import __version__
from saq_qat_runtime.bundle.expected import read_expected
from saq_qat_runtime.bundle.manifest import Gate, Manifest
from saq_qat_runtime.cli.main import COMMANDS
from tests.runtime.cli.conftest import SaqQatRuntime
from tests.runtime.verify.conftest import record, turned

Output = pytest.CaptureFixture[str]


def test_help_lists_every_verb_and_is_quick(saq_qat_runtime: SaqQatRuntime, capsys: Output) -> None:
    assert saq_qat_runtime("--help") == 0
    told = capsys.readouterr().out
    assert all(f"    {verb}" in told for verb in COMMANDS)
    assert list(COMMANDS) == ["info", "self-test", "build", "bench", "verify", "serve"]


def test_version(saq_qat_runtime: SaqQatRuntime, capsys: Output) -> None:
    assert saq_qat_runtime("--version") == 0
    assert capsys.readouterr().out == f"saq-qat-runtime {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("train",),
        ("info",),
        ("verify", "x"),
        ("bench", "x", "--seconds", "0"),
        ("self-test", "x", "--threads", "0"),
    ],
)
def test_wrong_usage_ends_with_2(
    saq_qat_runtime: SaqQatRuntime, capsys: Output, arguments: tuple[str, ...]
) -> None:
    assert saq_qat_runtime(*arguments) == 2
    assert "usage: saq-qat-runtime" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (("info", "nowhere", "--json"), "ModelError", 3),
        (("bench", "nowhere", "--json", "--threads", "x"), "UsageError", 2),
        (("--json", "verify", "nowhere", "--data", "."), "UsageError", 2),
    ],
)
def test_with_json_a_failure_is_one_document_on_stdout(
    saq_qat_runtime: SaqQatRuntime, capsys: Output, arguments: tuple[str, ...], kind: str, code: int
) -> None:
    assert saq_qat_runtime(*arguments) == code
    told = capsys.readouterr()
    (error,) = json.loads(told.out).values()
    assert {**error, "message": ""} == {"kind": kind, "message": "", "exit_code": code}
    assert told.err.endswith(f"{error['message']}\n")


def test_without_json_stdout_stays_empty(saq_qat_runtime: SaqQatRuntime, capsys: Output) -> None:
    assert saq_qat_runtime("info", "nowhere") == 3
    assert capsys.readouterr().out == ""


def test_info_is_one_page_of_80_columns(saq_qat_runtime: SaqQatRuntime, bundle: Path, capsys: Output) -> None:
    assert saq_qat_runtime("info", str(bundle)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny, exported by saq-qat 0.1.0"
    assert max(map(len, lines)) <= 80
    assert "proof: passed (1/1 comparisons hold)" in lines
    assert saq_qat_runtime("info", str(bundle), "--json") == 0
    assert capsys.readouterr().out == Manifest.load(bundle).to_json()


def test_nothing_of_a_bundle_commands_the_terminal(
    saq_qat_runtime: SaqQatRuntime, bundle: Path, change_manifest: Callable[..., None], capsys: Output
) -> None:
    manifest = Manifest.load(bundle)
    labels = ("\x1b[2J", "\x07", "\x9b31m", "\u202e", "elk")
    change_manifest(name="\x1b]0;mine\x07", created_by="\x7f\b", labels=labels)
    assert saq_qat_runtime("info", str(bundle)) == 0
    told = capsys.readouterr().out
    assert told.startswith("?]0;mine?, exported by ??\n") and "5 labels: ?[2J, ?, ?31m, ?, elk\n" in told
    assert saq_qat_runtime("info", str(bundle) + "\x1b[2J") == 3
    assert "?[2J: there is no such folder" in capsys.readouterr().err
    assert saq_qat_runtime("info", str(bundle), "--json") == 0
    assert capsys.readouterr().out.replace("\n", "").isprintable() and manifest.labels != labels


def test_self_test_compares_the_golden_logits(
    saq_qat_runtime: SaqQatRuntime, bundle: Path, capsys: Output
) -> None:
    assert saq_qat_runtime("self-test", str(bundle), "--threads", "1") == 0
    assert "golden logits: 20 compared, largest difference 0 (0 is allowed)" in capsys.readouterr().out


def test_a_missing_and_a_damaged_bundle_end_with_3(
    saq_qat_runtime: SaqQatRuntime, bundle: Path, capsys: Output
) -> None:
    assert saq_qat_runtime("info", str(bundle / "nowhere")) == 3
    (bundle / "model.onnx").write_bytes(b"")
    assert saq_qat_runtime("self-test", str(bundle)) == 3
    told = capsys.readouterr()
    assert "model.onnx has 0 bytes" in told.err
    assert "Traceback" not in told.err


def test_debug_shows_the_traceback_wherever_it_stands(
    saq_qat_runtime: SaqQatRuntime, bundle: Path, capsys: Output
) -> None:
    assert saq_qat_runtime("info", "--debug", str(bundle / "nowhere")) == 3
    assert "Traceback" in capsys.readouterr().err


def test_an_engine_that_is_not_there_ends_with_4(
    saq_qat_runtime: SaqQatRuntime, workshop: SimpleNamespace, capsys: Output
) -> None:
    for verb in ("bench", "self-test"):
        assert saq_qat_runtime(verb, str(workshop.folder), "--backend", "tensorrt") == 4
        assert f"saq-qat-runtime build {workshop.folder}" in capsys.readouterr().err


def test_a_bundle_without_a_graph_for_tensorrt_has_no_engine_to_build(
    saq_qat_runtime: SaqQatRuntime, bundle: Path, capsys: Output
) -> None:
    assert saq_qat_runtime("build", str(bundle)) == 3
    assert "this bundle is for onnxruntime only" in capsys.readouterr().err


def test_an_unproved_bundle_runs_only_on_purpose(
    saq_qat_runtime: SaqQatRuntime, bundle: Path, change_manifest: Callable[..., None], capsys: Output
) -> None:
    gate = Manifest.load(bundle).gate
    failed = tuple(replace(comparison, passed=False) for comparison in gate.comparisons)
    change_manifest(gate=Gate(False, True, failed))
    assert saq_qat_runtime("self-test", str(bundle)) == 3
    assert saq_qat_runtime("self-test", str(bundle), "--allow-failed-gate") == 0
    assert "FAILED" not in capsys.readouterr().out
    assert saq_qat_runtime("info", str(bundle)) == 0
    assert "proof: FAILED" in capsys.readouterr().out


def test_bench_measures_and_writes(
    saq_qat_runtime: SaqQatRuntime, bundle: Path, tmp_path: Path, capsys: Output
) -> None:
    quick = ("--seconds", "0.02", "--batch", "1", "--output", str(tmp_path / "bench"))
    assert saq_qat_runtime("bench", str(bundle), *quick) == 0
    told = capsys.readouterr()
    assert "Latency at batch 1, 1 thread" in told.out
    assert "bench: latency at batch 1 (" in told.err
    written = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert saq_qat_runtime("bench", str(bundle), *quick[:4], "--json") == 0
    assert json.loads(capsys.readouterr().out).keys() == written.keys()


def test_verify_prints_text_or_json_and_ends_with_1_past_the_thresholds(
    saq_qat_runtime: SaqQatRuntime,
    bundle: Path,
    photos: Path,
    change_manifest: Callable[..., None],
    tmp_path: Path,
    capsys: Output,
) -> None:
    quick = ("--bench", "--seconds", "0.02", "--bench-batch", "2")
    own = ("verify", str(bundle), "--data", str(photos), "--threads", "1")
    assert saq_qat_runtime(*own, *quick) == 0
    told = capsys.readouterr()
    assert told.out.startswith("tiny: PASSED") and "batch 2, 1 thread" in told.out
    assert "verify: 20/20 images in " in told.err
    record(bundle, change_manifest, turned(read_expected(bundle, Manifest.load(bundle)), 9))
    assert saq_qat_runtime(*own, "--json", "--output", str(tmp_path / "v.json")) == 1
    told = capsys.readouterr()
    assert json.loads(told.out) == json.loads((tmp_path / "v.json").read_text())
    assert json.loads(told.out)["answers"]["flips"] == 9
    assert "9 of 20 answers differ" in told.err


def test_serve_hands_over_to_its_room_and_no_other_verb_imports_it(
    saq_qat_runtime: SaqQatRuntime, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[argparse.Namespace] = []

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("bundle")

    def run(arguments: argparse.Namespace) -> int:
        served.append(arguments)
        return 7

    monkeypatch.setitem(sys.modules, "saq_qat_runtime.serve.command", None)
    assert saq_qat_runtime("info", str(bundle)) == 0
    stand_in = SimpleNamespace(add_arguments=add_arguments, run=run)
    monkeypatch.setitem(sys.modules, "saq_qat_runtime.serve", SimpleNamespace(command=stand_in))
    monkeypatch.setitem(sys.modules, "saq_qat_runtime.serve.command", stand_in)
    assert saq_qat_runtime("serve", str(bundle)) == 7
    assert served[0].bundle == str(bundle)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), 1, "x.png: No such file or directory"),
        (ZeroDivisionError("division"), 1, "internal error (ZeroDivisionError: division)"),
    ],
)
def test_every_error_is_one_message_and_a_code(
    saq_qat_runtime: SaqQatRuntime,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def fail(_arguments: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr("saq_qat_runtime.cli.info.run", fail)
    assert saq_qat_runtime("info", str(bundle)) == code
    assert capsys.readouterr().err.startswith(message)
