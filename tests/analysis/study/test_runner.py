"""Runs of a study: once each, some at a time, resumed after any end, stopped when asked."""

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from saq_qat.analysis.study.runner import Failure, State, StudyStoppedError, run_jobs
from saq_qat.train.stop import Stop
from tests.analysis.study.conftest import STUDY, Stub

ALL = sorted((f"{arm}-seed{seed}", kind) for arm in "ab" for seed in (0, 1) for kind in ("train", "measure"))


def run(stub: Stub, processes: int = 2, stop: Stop | None = None) -> tuple[list[Failure], dict[str, str]]:
    """Run all jobs; the failures, and the last state of each job."""
    last: dict[str, str] = {}

    def note(states: Mapping[str, State]) -> None:
        last.update({name: state.kind for name, state in states.items()})

    jobs = stub.prepared.jobs
    failures = run_jobs(jobs, processes, stub.command, stub.folder / "logs", stop or Stop(), note)
    return failures, last


def pid_of(stub: Stub, job: str) -> int:
    file = stub.folder / f"{job}.pid"
    for _ in range(300):
        if file.exists() and file.read_text():
            return int(file.read_text())
        time.sleep(0.05)
    raise AssertionError(f"{job} did not begin")


def test_every_job_is_trained_and_measured_once(stub: Stub) -> None:
    failures, last = run(stub)
    assert failures == []
    assert set(last.values()) == {"done"}
    assert stub.kinds() == ALL
    assert run(stub) == ([], last)
    assert stub.kinds() == ALL, "what is done is skipped"


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_as_many_run_at_a_time_as_asked_for_each_with_its_threads(stub: Stub, processes: int) -> None:
    stub.prepared = stub.prepare(threads=3)
    for job in stub.prepared.jobs:
        stub.order(job.name, seconds=0.3)
    run(stub, processes)
    calls = stub.calls()
    assert {call["threads"] for call in calls} == {"3"}
    at_a_time = [sum(c["begun"] <= call["begun"] < c["ended"] for c in calls) for call in calls]
    assert max(at_a_time) == processes


def test_a_run_that_was_cut_short_goes_on(stub: Stub) -> None:
    stub.order("a-seed0", fail=1, at="train")
    failures, last = run(stub)
    assert [(failure.job.name, failure.code) for failure in failures] == [("a-seed0", 1)]
    assert failures[0].said == "train a-seed0\nit did not work"
    assert last["a-seed0"] == "failed" and last["b-seed1"] == "done"
    stub.forget_orders()
    assert run(stub)[0] == []
    assert stub.kinds() == sorted(
        [("a-seed0", "resume"), *(call for call in ALL if call != ("a-seed0", "train"))]
    )
    assert len(list((stub.prepared.jobs[0].runs / "a-seed0").iterdir())) == 1


def test_a_process_that_is_killed_is_a_failure_and_goes_on_next_time(stub: Stub) -> None:
    stub.order("b-seed0", wait="train")
    killer = threading.Thread(target=lambda: os.kill(pid_of(stub, "b-seed0"), signal.SIGKILL))
    killer.start()
    failures, _ = run(stub)
    killer.join()
    assert [(failure.job.name, failure.code) for failure in failures] == [("b-seed0", -signal.SIGKILL)]
    stub.forget_orders()
    assert run(stub)[0] == []
    assert ("b-seed0", "resume") in stub.kinds()


def test_what_no_other_run_can_do_better_begins_no_other(stub: Stub) -> None:
    stub.order("a-seed0", fail=3)
    failures, last = run(stub, processes=1)
    assert [failure.code for failure in failures] == [3]
    assert last == {"a-seed0": "failed", "b-seed0": "waiting", "a-seed1": "waiting", "b-seed1": "waiting"}


def test_a_run_that_diverged_is_no_failure_and_is_not_tried_again(stub: Stub) -> None:
    stub.order("a-seed1", fail=5)
    failures, last = run(stub)
    assert failures == [] and last["a-seed1"] == "diverged"
    count = len(stub.calls())
    stub.forget_orders()
    assert run(stub)[1]["a-seed1"] == "diverged"
    assert len(stub.calls()) == count


def test_a_command_that_does_nothing_is_not_called_for_ever(stub: Stub) -> None:
    stub.command = ("true",)
    failures, _ = run(stub)
    assert len(failures) == 4 and "left nothing behind" in failures[0].said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_process_and_leaves_with_its_code(stub: Stub, number: int) -> None:
    for job in ("a-seed0", "b-seed0"):
        stub.order(job, wait="train")
    stop = Stop()

    def ask() -> None:
        pids = [pid_of(stub, job) for job in ("a-seed0", "b-seed0")]
        stop.number = number
        for pid in pids:
            for _ in range(200):
                if not Path(f"/proc/{pid}").exists():
                    break
                time.sleep(0.05)

    asker = threading.Thread(target=ask)
    asker.start()
    with pytest.raises(StudyStoppedError) as error:
        run(stub, stop=stop)
    asker.join()
    assert error.value.exit_code == 128 + number
    assert stub.calls() == [], "neither went on, and no other began"


def test_a_signal_hides_no_failure_from_before_it(stub: Stub) -> None:
    stub.order("a-seed0", fail=1)
    for job in ("b-seed0", "a-seed1"):
        stub.order(job, wait="train")
    stop = Stop()

    def ask() -> None:
        pid_of(stub, "b-seed0"), pid_of(stub, "a-seed1")  # which begins behind the failure
        stop.number = signal.SIGTERM

    asker = threading.Thread(target=ask)
    asker.start()
    with pytest.raises(
        StudyStoppedError, match=r"(?s)a-seed0 \(exit code 1, .*a-seed0\.log\).*every other run"
    ):
        run(stub, stop=stop)
    asker.join()


def test_a_process_that_a_killed_study_left_is_waited_for(stub: Stub) -> None:
    logs = stub.folder / "logs"
    logs.mkdir()
    with (logs / "a-seed0.log").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # The lock is the child's too, and lasts as long as it does.
        left_behind = subprocess.Popen(["sleep", "1"], stdout=file)
    begun = time.monotonic()
    seen: set[str] = set()
    run_jobs(
        stub.prepared.jobs, 2, stub.command, logs, Stop(), lambda states: seen.add(states["a-seed0"].kind)
    )
    assert left_behind.wait() == 0
    assert "held" in seen and time.monotonic() - begun > 0.9
    assert stub.kinds() == ALL


def test_an_arm_that_was_changed_is_trained_anew_beside_the_others(stub: Stub) -> None:
    run(stub)
    stub.prepared = stub.prepare(STUDY.replace("0.2", "0.3"))
    stub.lay_out()
    run(stub)
    assert stub.kinds() == sorted([*ALL, *(call for call in ALL if call[0].startswith("b"))])
