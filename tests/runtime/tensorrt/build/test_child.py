"""The building process seen from outside: whatever becomes of it, the parent gets an answer or an error."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import EngineError
from saq_qat_runtime.tensorrt.build.child import read_outcome, run_to_end
from saq_qat_runtime.tensorrt.build.exchange import Answer, Refusal, Request, Workplace
from saq_qat_runtime.tensorrt.build.journal import Journal, tail
from saq_qat_runtime.tensorrt.engine_record import Profile
from tests.runtime.tensorrt.build.requests import REQUEST

ANSWER = Answer(
    version="11.4.0",
    inputs=(TensorSpec("image", "float32", ("N", 3, 8, 8)),),
    outputs=(TensorSpec("logits", "float32", ("N", 10)),),
    profiles=(Profile("image", (1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8)),),
    compute_capabilities=(),
    layer_source="engine inspector",
    layers='{"Layers": []}',
    notes=("a note",),
    seconds=1.5,
)
ENDLESS = (
    "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(60)\n"
)
# A shell that starts the tests in the background lets its processes ignore interrupts.
PARENT = (
    "import pathlib, signal, sys\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from saq_qat_runtime.tensorrt.build.child import run_to_end\n"
    "run_to_end([sys.executable, '-c', *sys.argv[1:]], pathlib.Path('output.txt'), 60)\n"
)


def outcome_error(folder: Path, code: int = 0) -> str:
    with pytest.raises(EngineError) as raised:
        read_outcome(Workplace(folder), REQUEST, code)
    return str(raised.value)


def pid_in(path: Path) -> int:
    """The process that wrote its number there."""
    for _ in range(300):
        if path.exists() and path.read_text(encoding="utf-8"):
            return int(path.read_text(encoding="utf-8"))
        time.sleep(0.05)
    raise AssertionError("the process never started")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_requests_and_answers_survive_the_way_through_a_file(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    REQUEST.save(place.request)
    assert Request.load(place.request) == REQUEST
    ANSWER.save(place.answer)
    place.engine.write_bytes(b"plan")
    finished = read_outcome(place, REQUEST, 0)
    assert (finished.content, finished.answer) == (b"plan", ANSWER)


@pytest.mark.parametrize("content", [None, "", "{", "[1]", '{"version": "11.4.0"}'])
def test_an_answer_that_cannot_be_read_is_an_error(content: str | None, tmp_path: Path) -> None:
    Workplace(tmp_path).engine.write_bytes(b"plan")
    if content is not None:
        Workplace(tmp_path).answer.write_text(content, encoding="utf-8")
    assert "left no answer that can be read" in outcome_error(tmp_path)


def test_an_answer_without_an_engine_is_an_error(tmp_path: Path) -> None:
    ANSWER.save(Workplace(tmp_path).answer)
    assert "left no answer that can be read" in outcome_error(tmp_path)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGSEGV, "the library crashed (Segmentation fault, signal 11)"),
        (-signal.SIGABRT, "the library crashed (Aborted, signal 6)"),
        (-signal.SIGKILL, "killed (SIGKILL), which is what happens when memory runs out"),
        (1, "failed with exit status 1"),
    ],
)
def test_a_process_that_dies_is_told_with_its_last_words(code: int, words: str, tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    ANSWER.save(place.answer)
    with Journal(place.journal) as journal:
        for number in range(100):
            journal.note("VERBOSE", f"step {number}")
    place.output.write_text("terminate called\n", encoding="utf-8")
    message = outcome_error(tmp_path, code)
    assert words in message
    assert "VERBOSE: step 99\n    terminate called" in message
    assert "step 50" not in message


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (
            Refusal("import", "", ("libnvinfer.so.11: no such file",)),
            "TensorRT cannot be imported:\n    libnv",
        ),
        (
            Refusal("parse", "11.4.0", ("node 3, a: no", "node 4, b: no")),
            "node 3, a: no\n    node 4, b: no\n",
        ),
        (
            Refusal("build", "11.4.0", ()),
            "TensorRT 11.4.0 could not build the engine:\n    it gave no reason",
        ),
        (Refusal("build", "11.4.0", ("cudaError 35",)), "Ask saq-qat doctor about driver and GPU"),
        (Refusal("build", "11.4.0", ("Out of memory",)), "Lower deploy.tensorrt.workspace_mib"),
        (Refusal("inspect", "11.4.0", ("no",)), "built an engine that it cannot load again"),
    ],
)
def test_a_refusal_is_told_in_the_librarys_words_with_a_fix(
    refusal: Refusal, words: str, tmp_path: Path
) -> None:
    refusal.save(Workplace(tmp_path).refusal)
    assert words in outcome_error(tmp_path)


def test_what_a_process_prints_goes_to_a_file_and_its_status_comes_back(tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    program = "import sys; print('to stdout', flush=True); sys.exit('to stderr')"
    assert run_to_end([sys.executable, "-c", program], output, 60) == 1
    assert output.read_text(encoding="utf-8") == "to stdout\nto stderr\n"
    assert run_to_end([sys.executable, "-c", "import os; os.abort()"], output, 60) == -signal.SIGABRT


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(subprocess.TimeoutExpired):
        run_to_end([sys.executable, "-c", ENDLESS, str(pid_file)], tmp_path / "output.txt", 1)
    assert not is_alive(pid_in(pid_file))


def test_interrupting_the_parent_ends_the_building_process(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, ENDLESS, str(pid_file)], cwd=tmp_path, stderr=subprocess.PIPE
    )
    child = pid_in(pid_file)
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert not is_alive(child)


def test_the_building_process_starts_without_torch_onnx_or_numpy() -> None:
    program = (
        "import sys, saq_qat_runtime.tensorrt.build.worker\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'pydantic', 'tensorrt', 'tensorrt_rtx'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_journal_keeps_problems_apart_from_the_list_of_layers(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.txt") as journal:
        journal.note("VERBOSE", "Layers:\nName: conv1")
        journal.note("WARNING", "slow \n")
        journal.note("ERROR", "broken")
        journal.note("INTERNAL_ERROR", "worse")
    assert journal.layers == "Layers:\nName: conv1"
    assert journal.warnings == ["slow"]
    assert journal.errors == ["broken", "worse"]
    assert tail(tmp_path / "journal.txt", 2) == ["ERROR: broken", "INTERNAL_ERROR: worse"]


def test_a_journal_of_any_length_takes_bounded_space_and_keeps_its_end(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.txt") as journal:
        for number in range(300):
            journal.note("VERBOSE", f"{number} " + "x" * 50_000)
            journal.note("WARNING", str(number))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 9_000_000
    assert tail(tmp_path / "journal.txt", 1) == ["WARNING: 299"]
    assert len(journal.warnings) == 200


def test_a_journal_that_was_never_written_has_no_last_lines(tmp_path: Path) -> None:
    assert tail(tmp_path / "none.txt", 5) == []
