"""Two processes train together; one dies or hangs, and the other says so in time, behind a checkpoint."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest import MonkeyPatch

from saq_qat.errors import SetupError
from saq_qat.patience import TIMEOUT_VARIABLE
from saq_qat.train.checkpoint import read_checkpoint
from saq_qat.train.distributed import joined_processes

SECONDS = 20
WORKER = "tests.faults.training.ranks_worker"
ROOT = Path(__file__).parents[3]


def both(folder: Path, *arguments: str) -> list["subprocess.Popen[str]"]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        TIMEOUT_VARIABLE: str(SECONDS),
    }
    command = [sys.executable, "-m", WORKER, str(folder), *arguments]
    return [
        subprocess.Popen(command, env={**shared, "RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]


ENDS = {"dies": "another process ended", "hangs": f"did not answer within {SECONDS} s"}


@pytest.mark.slow  # four processes start, and one waits until its time is over
@pytest.mark.timeout(600)
@pytest.mark.parametrize("end", ENDS)
def test_a_rank_that_is_gone_ends_the_other_in_time_and_both_go_on(tmp_path: Path, end: str) -> None:
    run = tmp_path / "run"
    first, second = both(run, end)
    begun = time.monotonic()
    _, errors = first.communicate(timeout=400)
    took = time.monotonic() - begun
    assert first.returncode == 1, errors
    said = (tmp_path / f"{end}-0.txt").read_text()
    assert ENDS[end] in said and "start torchrun again with train --resume" in said
    second.send_signal(signal.SIGKILL)
    second.communicate()
    assert read_checkpoint(run / "checkpoints" / "last").position.step == 2
    for process in both(run, "goes on", "resume"):
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    whole = tmp_path / "whole"
    for process in both(whole, "undisturbed"):
        process.communicate(timeout=400)
    last = Path("checkpoints", "last", "model.safetensors")
    assert (run / last).read_bytes() == (whole / last).read_bytes()
    print(f"a rank that {end}: the other ended {took:.1f} s after its start, with: {said}")


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "1.5", "9999999999", ""])
def test_a_time_to_wait_that_is_none_is_refused(monkeypatch: MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, seconds)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SetupError, match=f"{TIMEOUT_VARIABLE} must be a whole number"), joined_processes():
        pass


WHOLE = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number from 1 on.*got 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be a whole number from 1 on.*got '0'"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE must be a whole number from 1 on"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK must be a whole number from 0 on.*got '-1'"),
        ({"RANK": ""}, "announces 2 processes, and the environment lacks RANK"),
        ({"MASTER_ADDR": "", "MASTER_PORT": ""}, "lacks MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "2"}, "RANK must be below WORLD_SIZE = 2.*got 2"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT must be a whole number from 1 on.*got 'http'"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT at most 65535; got 0 and 70000"),
    ],
)
def test_an_environment_that_no_launcher_makes_is_refused(
    monkeypatch: MonkeyPatch, changed: dict[str, str], said: str
) -> None:
    for name, value in {**WHOLE, **changed}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(SetupError, match=rf"{said}.*Start several processes with torchrun"),
        joined_processes(),
    ):
        pass
