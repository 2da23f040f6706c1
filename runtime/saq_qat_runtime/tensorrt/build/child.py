"""The building process, seen from outside: whatever happens in there becomes an answer or an EngineError."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saq_qat_runtime.errors import EngineError, ModelError
from saq_qat_runtime.tensorrt.build.exchange import Answer, Refusal, Request, Workplace
from saq_qat_runtime.tensorrt.build.flavours import FLAVOUR_NAMES
from saq_qat_runtime.tensorrt.build.journal import tail

__all__ = ["Finished", "build_in_child", "read_outcome", "run_to_end"]

_WORKER = "saq_qat_runtime.tensorrt.build.worker"
_SHOWN_LINES = 12

# What a library says, in part, and what helps.
_FIXES = (
    (
        "Scale coefficients must all be positive",
        "A tensor that is always zero gets such a scale: look at the layer before it",
    ),
    ("within workspace limit", "Raise deploy.tensorrt.workspace_mib"),
    ("optimization profile", "Export the graph with a batch that alone is dynamic"),
    ("CUDA", "Ask saq-qat doctor about driver and GPU"),
    ("cudaError", "Ask saq-qat doctor about driver and GPU"),
    ("ut of memory", "Lower deploy.tensorrt.workspace_mib or batch.maximum, or free memory of the GPU"),
)


@dataclass(frozen=True)
class Finished:
    """An engine and what the building process told of it."""

    content: bytes
    answer: Answer


def build_in_child(request: Request, timeout_seconds: float) -> Finished:
    """Build in a process of its own and wait for it; an exception here, Ctrl-C too, ends that process.

    Raises:
        EngineError: the library refused the graph; or the process crashed, took too long or gave no answer.
    """
    with tempfile.TemporaryDirectory(prefix="saq-qat-engine-") as folder:
        place = Workplace(Path(folder))
        request.save(place.request)
        command = [sys.executable, "-P", "-m", _WORKER, folder]
        try:
            code = run_to_end(command, place.output, timeout_seconds)
        except subprocess.TimeoutExpired:
            what = (
                f"the build took more than {timeout_seconds:g} s and was ended; allow more time or lower "
                "deploy.tensorrt.optimization_level"
            )
            raise EngineError(_failure_text(place, request, what)) from None
        return read_outcome(place, request, code)


def run_to_end(command: Sequence[str], output: Path, timeout_seconds: float) -> int:
    """Run a process, what it prints going to a file; its exit status, negative for a signal.

    The process is ended if an exception arises here.

    Raises:
        TimeoutExpired: of the module subprocess.
    """
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        try:
            return process.wait(timeout_seconds)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def read_outcome(place: Workplace, request: Request, code: int) -> Finished:
    """What a process that ended with status ``code`` left behind.

    Raises:
        EngineError: it crashed, was refused by the library, or left no answer that can be read.
    """
    if code != 0:
        raise EngineError(_failure_text(place, request, _crash(code, request)))
    try:
        if place.refusal.exists():
            raise EngineError(_refusal_text(Refusal.load(place.refusal), request))
        return Finished(place.engine.read_bytes(), Answer.load(place.answer))
    except (ModelError, OSError) as error:
        what = f"the building process ended well but left no answer that can be read ({error})"
        raise EngineError(_failure_text(place, request, what)) from error


def _crash(code: int, request: Request) -> str:
    if code > 0:
        return f"the building process failed with exit status {code}"
    if code == -signal.SIGKILL:
        return (
            "the building process was killed (SIGKILL), which is what happens when memory runs out; "
            "free some, or build on a larger machine"
        )
    return (
        f"the library crashed ({signal.strsignal(-code)}, signal {-code}), which a graph that breaks a rule "
        f"can do; `saq-qat check {request.source}` names the rule"
    )


def _failure_text(place: Workplace, request: Request, what: str) -> str:
    """What happened, with the last words of library and process."""
    words = [*tail(place.journal, _SHOWN_LINES), *tail(place.output, _SHOWN_LINES)]
    shown = "".join(f"\n    {line[:200]}" for line in words)
    last = f"\nIts last messages:{shown}" if words else ""
    return f"{request.source}: no engine was built: {what}.{last}"


def _refusal_text(refusal: Refusal, request: Request) -> str:
    """The library's words, each on a line, and a fix."""
    library = f"{FLAVOUR_NAMES[request.flavour]} {refusal.version}".rstrip()
    what = {
        "import": f"{library} cannot be imported",
        "parse": f"{library} does not accept the graph",
        "configure": f"{library} cannot be set up for this graph",
        "build": f"{library} could not build the engine",
        "inspect": f"{library} built an engine that it cannot load again",
    }[refusal.stage]
    words = "".join(f"\n    {message}" for message in refusal.messages or ("it gave no reason",))
    known = [fix for part, fix in _FIXES if any(part in message for message in refusal.messages)]
    check = f"`saq-qat check {request.source}` names the rule that a graph breaks."
    general = "`saq-qat doctor` shows what is installed." if refusal.stage in ("import", "inspect") else check
    return f"{request.source}: {what}:{words}\n{'. '.join([*dict.fromkeys(known), general])}"
