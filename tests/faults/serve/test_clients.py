"""Whatever one client does, it hears what it should, and the next one is answered as if nothing had been."""

import socket
import time

import pytest

from saq_qat_runtime.session import Session
from tests.faults.serve.hostile import FAULTS, Fault, Target, exchange
from tests.runtime.networks import images
from tests.runtime.serve.client import Address
from tests.runtime.serve.engines import slowed


def check_right(target: Target, session: Session) -> None:
    """It answers, and in every bit as the session does."""
    reply = target.address.infer(target.body, target.json_length)
    assert reply.status == 200, reply.body
    assert reply.body.endswith(session.run(images(1)).tobytes())


def wait_until_free(server: Address) -> None:
    """No connection, and no request, of a client that is gone stays."""
    end = time.monotonic() + 10
    while server.server.server_state.connections or server.serving.admission.requests:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_one_client_harms_no_other(target: Target, integer_session: Session, fault: Fault) -> None:
    assert fault.act(target) in fault.may
    check_right(target, integer_session)
    wait_until_free(target.address)
    assert target.address.serving.admission._buffered == 0
    assert target.address.ask("GET", "/v2/health/ready").status == 200


@pytest.mark.parametrize(("version", "requests"), [("1.0", 1), ("1.1", 1), ("1.1", 3)])
def test_who_ends_its_half_behind_whole_requests_hears_every_answer(
    target: Target, version: str, requests: int
) -> None:
    request = target.request().replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    assert exchange(target, request * requests, half_close=True, enough=9) == (200,) * requests
    wait_until_free(target.address)


def test_who_ends_its_half_while_it_waits_is_told_so_and_answered(
    target: Target, integer_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = target.address.serving.catalogue.find("tiny")
    monkeypatch.setattr(model._batcher, "_run", slowed(model._batcher._run, 0.3))
    with target.address.connect() as connection:
        connection.sendall(target.request())
        connection.shutdown(socket.SHUT_WR)
        heard = b"".join(iter(lambda: connection.recv(65536), b""))
    interim, _, answer = heard.partition(b"\r\n\r\n")
    assert interim.startswith(b"HTTP/1.1 100 ")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(integer_session.run(images(1)).tobytes())


def test_a_request_behind_one_that_was_cut_short_is_not_invented(target: Target) -> None:
    cut = target.request()[:-9]
    assert exchange(target, target.request() + cut, half_close=True, enough=9) == (200,)
    wait_until_free(target.address)
