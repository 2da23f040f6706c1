"""The process: not ready before it is, replaced models without a gap, and a stop that loses nothing."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from saq_qat_runtime.session import Session
from tests.runtime.networks import images
from tests.runtime.serve.client import binary_request
from tests.runtime.serve.conftest import Launch, Start
from tests.runtime.serve.load import Load


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_stop_under_load_loses_no_request(
    launch: Launch, integer_bundle: Path, integer_session: Session, keep_alive: bool
) -> None:
    process, address = launch(integer_bundle, "--drain-seconds", "0.5")
    with Load(address, integer_session, keep_alive=keep_alive) as load:
        load.wait_for(30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        end = time.monotonic() + 10
        while not load.refused and time.monotonic() < end:
            time.sleep(0.01)
    assert load.lost == []
    assert load.refused > 0


def test_while_it_drains_it_is_not_ready_and_still_answers(launch: Launch, integer_bundle: Path) -> None:
    process, address = launch(integer_bundle, "--drain-seconds", "2")
    assert address.ask("GET", "/v2/health/ready").status == 200
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert address.ask("GET", "/v2/health/ready").status == 503
    assert address.ask("GET", "/v2/models/tiny/ready").status == 503
    assert address.ask("GET", "/v2/health/live").status == 200
    reply = address.infer(*binary_request(images(1)))
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert process.wait(60) == 0


def test_a_slow_request_in_flight_is_finished(launch: Launch, integer_bundle: Path) -> None:
    process, address = launch(integer_bundle, "--drain-seconds", "0")
    body, length = binary_request(images(1))
    head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {length}\r\n"
    with address.connect() as connection:
        connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:-10])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        connection.sendall(body[-10:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert process.wait(60) == 0


def test_a_client_that_never_finishes_does_not_keep_it_alive(launch: Launch, integer_bundle: Path) -> None:
    process, address = launch(integer_bundle, "--drain-seconds", "0", "--shutdown-seconds", "1")
    with address.connect() as connection:
        connection.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


_STOPS_WHILE_DECODING = """
import pathlib, time
from saq_qat_runtime.serve.settings import ServeSettings
from saq_qat_runtime.serve.web.serving import Serving
serving = Serving(pathlib.Path("models"), ServeSettings())
for _ in range(8):
    serving._workers.submit(time.sleep, 300)
serving.close()
"""


def test_a_picture_that_is_still_decoded_does_not_keep_it_alive() -> None:
    stopped = subprocess.run([sys.executable, "-c", _STOPS_WHILE_DECODING], timeout=60, check=False)
    assert stopped.returncode == 0


def test_models_are_replaced_under_load_without_an_error(
    launch: Launch, integer_bundle: Path, integer_session: Session, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    shutil.copytree(integer_bundle, root / "tiny" / "1")
    process, address = launch(root)
    with Load(address, integer_session) as load:
        for version in range(2, 5):
            shutil.copytree(integer_bundle, root / "tiny" / str(version))
            shutil.rmtree(root / "tiny" / str(version - 1))
            process.send_signal(signal.SIGHUP)
            end = time.monotonic() + 60
            while address.ask("GET", "/v2/models/tiny").json["versions"] != [str(version)]:
                assert time.monotonic() < end
                time.sleep(0.05)
            load.wait_for(10)
    assert load.lost == []


def test_a_reload_that_fails_is_said_and_changes_nothing(
    launch: Launch, integer_bundle: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    shutil.copytree(integer_bundle, root / "tiny")
    process, address = launch(root)
    (root / "tiny" / "manifest.json").write_text("{")
    process.send_signal(signal.SIGHUP)
    assert process.stderr is not None
    assert "reload failed" in process.stderr.readline()
    assert address.infer(*binary_request(images(1))).status == 200
    assert 'saq_reloads_total{result="failed"} 1.0' in address.ask("GET", "/metrics").body.decode()


def test_before_it_is_loaded_it_lives_and_is_not_ready(
    start: Start, integer_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Event()
    self_test = Session.self_test

    def waiting(session: Session) -> object:
        opened.wait(20)
        return self_test(session)

    monkeypatch.setattr(Session, "self_test", waiting)
    address = start(integer_bundle, wait=False)
    assert address.ask("GET", "/v2/health/live").status == 200
    assert address.ask("GET", "/v2/health/ready").status == 503
    for reply in (
        address.infer(*binary_request(images(1))),
        address.ask("POST", "/predict", b"x"),
        address.ask("GET", "/v2/models/tiny/ready"),
    ):
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    opened.set()
    end = time.monotonic() + 20
    while address.ask("GET", "/v2/health/ready").status != 200:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert address.infer(*binary_request(images(1))).status == 200


def test_an_engine_that_broke_down_makes_it_neither_ready_nor_alive(
    start: Start, integer_bundle: Path
) -> None:
    address = start(integer_bundle)
    session = address.serving.catalogue.find("tiny").session
    session._lifetime._fault = "a fault"
    reply = address.infer(*binary_request(images(1)))
    assert reply.status == 503
    assert "a fault" in reply.json["error"]
    assert address.ask("GET", "/v2/health/live").status == 503
    assert address.ask("GET", "/v2/health/ready").status == 503


def test_batches_form_under_load_and_no_answer_depends_on_them(
    start: Start, integer_bundle: Path, integer_session: Session
) -> None:
    from saq_qat_runtime.serve.settings import ServeSettings

    settings = ServeSettings(threads=1, drain_seconds=0.0, max_batch=4, batch_delay=0.02)
    address = start(integer_bundle, settings)
    with Load(address, integer_session, clients=8) as load:
        load.wait_for(60)
    assert load.lost == []
    text = address.ask("GET", "/metrics").body.decode()
    counts = {
        name: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        for name in ("saq_batch_size_sum", "saq_batch_size_count")
        if line.startswith(name)
    }
    assert counts["saq_batch_size_sum"] / counts["saq_batch_size_count"] > 1.5
    assert np.isclose(counts["saq_batch_size_sum"], load.answered)
