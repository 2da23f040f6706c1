"""How calls, sessions and processes end: Ctrl-C, signals, destructors, forks, threads that go on."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from saq_qat_runtime.errors import ClosedError
from saq_qat_runtime.lifetime import Lifetime
from saq_qat_runtime.session import Session
from tests.runtime.networks import images

LONGEST = 300


def in_a_process(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, which must end by itself."""
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LONGEST, env=environment, check=False
    )


FORK = """
import os, sys
from pathlib import Path
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from saq_qat_runtime.openvino import OpenVinoBackend
from tests.runtime.networks import images
engine = {"onnxruntime": OnnxRuntimeBackend, "openvino": OpenVinoBackend}[sys.argv[2]]
backend = engine(Path(sys.argv[1]).read_bytes(), threads=4)
backend.run({"image": images(8)})
if sys.argv[3] == "closed":
    backend.close()
child = os.fork()
if child == 0:
    print("child")
    sys.exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print("parent", status, flush=True)
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("state", ["open", "closed"])
def test_a_child_that_is_forked_later_ends_with_its_own_status(
    network_bytes: bytes, tmp_path: Path, engine: str, state: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(network_bytes)
    done = in_a_process(FORK, str(tmp_path / "model.onnx"), engine, state)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["child", "parent 7"]


DAEMON = """
import sys, threading, time
from saq_qat_runtime.errors import ClosedError
from saq_qat_runtime.session import Session
from tests.runtime.networks import images
session, batch = Session.load(sys.argv[1], threads=1), images(512)
def work():
    while True:
        session(batch)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
"""


def test_an_interpreter_ends_while_daemon_threads_are_at_it(bundle: Path) -> None:
    done = in_a_process(DAEMON, str(bundle))
    assert done.returncode == 0, done.stderr[-2000:]


INTERRUPTED = """
import itertools, signal, sys
from saq_qat_runtime.session import Session
from tests.runtime.networks import images
session, batch, caught = Session.load(sys.argv[1], threads=1), images(1), 0
count, pause = int(sys.argv[2]), 0.0
session(batch)
for turn in range(count):
    try:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 1e-5 + (turn % 97) * 7e-6)
        for _ in itertools.repeat(None, 10**6):
            session(batch)
    except KeyboardInterrupt:
        caught += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
session.close()
print(caught)
"""


@pytest.mark.parametrize("count", [400, pytest.param(5_000, marks=pytest.mark.slow)])  # minutes of Ctrl-C
def test_closing_ends_after_hundreds_of_interruptions(bundle: Path, count: int) -> None:
    done = in_a_process(INTERRUPTED, str(bundle), str(count))
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == count


def test_a_signal_handler_may_close_during_a_call() -> None:
    released: list[str] = []
    lifetime = Lifetime(lambda: released.append("engine"))
    before = signal.signal(signal.SIGUSR1, lambda *_: lifetime.close())

    def work() -> str:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert released == []
        return "done"

    try:
        assert lifetime.call(work) == "done"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert released == ["engine"]
    lifetime.close()
    assert released == ["engine"]
    with pytest.raises(ClosedError):
        lifetime.call(work)


def test_a_destructor_may_close_during_a_call() -> None:
    released: list[str] = []
    lifetime = Lifetime(lambda: released.append("engine"))

    class Owner:
        def __del__(self) -> None:
            lifetime.close()

    def work() -> None:
        owner = Owner()
        owner.own = owner  # type: ignore[attr-defined]  # a cycle, which the collector finds
        del owner
        gc.collect()
        assert released == []

    lifetime.call(work)
    assert released == ["engine"]


def test_two_threads_that_close_inside_their_calls_do_not_wait_for_each_other() -> None:
    released: list[str] = []
    lifetime = Lifetime(lambda: released.append("engine"))
    both = threading.Barrier(2)

    def work() -> None:
        both.wait(LONGEST)
        lifetime.close()
        both.wait(LONGEST)
        assert released == []

    threads = [threading.Thread(target=lifetime.call, args=(work,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST)
    assert not any(thread.is_alive() for thread in threads)
    assert released == ["engine"]


def test_closing_waits_for_the_calls_of_other_threads() -> None:
    released: list[str] = []
    lifetime = Lifetime(lambda: released.append("engine"))
    started = threading.Event()

    def work() -> None:
        started.set()
        time.sleep(0.1)
        assert released == []

    thread = threading.Thread(target=lifetime.call, args=(work,))
    thread.start()
    started.wait(LONGEST)
    lifetime.close()
    assert released == ["engine"]
    thread.join()


def test_the_session_of_a_bundle_closes_itself_as_a_context(bundle: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Session.load(bundle, threads=1) as session:
        session(images(1))
        raise KeyboardInterrupt
    with pytest.raises(ClosedError):
        session(images(1))
