"""Errors leave as one message and the documented exit code; tracebacks only with --debug."""

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
import torch

from saq_qat import __version__, errors
from saq_qat_runtime import errors as runtime_errors

SaqQat = Callable[..., int]

EXIT_CODES: list[tuple[BaseException, int]] = [
    (errors.SaqError("x"), 1),
    (errors.GateError("x"), 1),
    (errors.RecipeError("x"), 2),
    (errors.LegalityError("x"), 2),
    (errors.DataError("x"), 3),
    (errors.ArtifactError("x"), 3),
    (errors.SetupError("x"), 4),
    (errors.DivergedError("x"), 5),
    (runtime_errors.InputError("x"), 2),
    (runtime_errors.ModelError("x"), 3),
    (runtime_errors.BackendUnavailable("x"), 4),
    (runtime_errors.EngineError("x"), 1),
    (runtime_errors.RuntimeFault("x"), 1),
    (runtime_errors.ClosedError("x"), 1),
]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("saq_qat.recipe.json_schema.recipe_json_schema", fail)


@pytest.mark.parametrize(("error", "code"), EXIT_CODES)
def test_each_error_has_its_exit_code_and_no_traceback(
    saq_qat: SaqQat,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    fail_with(monkeypatch, error)
    assert saq_qat("schema") == code
    assert capsys.readouterr().err == "x\n"


def test_what_the_program_warns_of_is_a_sentence_without_a_place_in_its_code(
    saq_qat: SaqQat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(*_: object, **__: object) -> dict[str, object]:
        warnings.simplefilter("always")
        warnings.warn_explicit("lines are lost.", UserWarning, errors.__file__, 1)
        warnings.warn_explicit("of another program", UserWarning, "elsewhere.py", 7)
        return {}

    monkeypatch.setattr("saq_qat.recipe.json_schema.recipe_json_schema", warn)
    with pytest.warns(UserWarning, match="of another program"):
        assert saq_qat("schema") == 0
    assert capsys.readouterr().err == "warning: lines are lost.\n"


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (("report", "nowhere", "--json"), "ArtifactError", 3),
        (("runs", "compare", "nowhere", "--json"), "RecipeError", 2),
        (("verify", "--json", "--code-images", "0"), "UsageError", 2),
        (("eval", "--json", "--no-such-option"), "UsageError", 2),
    ],
)
def test_with_json_a_failure_is_one_document_on_stdout(
    saq_qat: SaqQat, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], kind: str, code: int
) -> None:
    assert saq_qat(*arguments) == code
    told = capsys.readouterr()
    (error,) = json.loads(told.out).values()
    assert {**error, "message": ""} == {"kind": kind, "message": "", "exit_code": code}
    assert error["message"]
    assert told.err


def test_without_json_a_failure_leaves_stdout_empty(
    saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saq_qat("report", "nowhere") == 3
    assert capsys.readouterr().out == ""


def test_an_unexpected_error_is_one_line(
    saq_qat: SaqQat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    assert saq_qat("schema") == 1
    assert capsys.readouterr().err == (
        "internal error (ZeroDivisionError: division by zero); "
        "run again with --debug and report the traceback\n"
    )


def test_an_error_of_the_operating_system_names_the_file(
    saq_qat: SaqQat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, PermissionError(13, "Permission denied", "runs"))
    assert saq_qat("schema") == 1
    assert capsys.readouterr().err == "runs: Permission denied\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "memory ran out: MemoryError. Lower"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "memory ran out: [enforce",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            "memory ran out: CUDA out",
        ),
    ],
)
def test_memory_that_runs_out_says_what_to_lower(
    saq_qat: SaqQat,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    said: str,
) -> None:
    fail_with(monkeypatch, error)
    assert saq_qat("schema") == 1
    shown = capsys.readouterr().err
    assert shown.startswith(said) and "train.batch_size" in shown


@pytest.mark.parametrize("arguments", [("--debug", "schema"), ("schema", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(
    saq_qat: SaqQat,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    fail_with(monkeypatch, errors.DataError("no images"))
    assert saq_qat(*arguments) == 3
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("\nno images\n")


def test_an_interrupt_exits_with_130_and_says_so(
    saq_qat: SaqQat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert saq_qat("schema") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_termination_exits_with_143_after_cleaning_up() -> None:
    program = (
        "import os, signal, sys, saq_qat.recipe.json_schema as s\n"
        "from saq_qat.cli.main import main\n"
        "def killed():\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "    finally: print('cleaned up')\n"
        "s.recipe_json_schema = killed\n"
        "sys.argv = ['saq-qat', 'schema']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "cleaned up\n", "")


def test_a_closed_pipe_is_no_error_message() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from saq_qat.cli.main import main; main()", "schema"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.stderr == b""


@pytest.mark.parametrize(
    "arguments", [("shwo",), ("show",), ("init", "--templat", "digits"), ("--nonsense",)]
)
def test_wrong_usage_exits_with_2(
    saq_qat: SaqQat, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert saq_qat(*arguments) == 2
    assert "Usage: saq-qat" in capsys.readouterr().err


def test_version(saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]) -> None:
    assert saq_qat("--version") == 0
    assert capsys.readouterr().out == f"saq-qat {__version__}\n"


def test_help_describes_every_verb(saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]) -> None:
    assert saq_qat("--help") == 0
    shown = capsys.readouterr().out
    for verb in ("init", "show", "schema", "doctor"):
        assert verb in shown
        assert saq_qat(verb, "--help") == 0
