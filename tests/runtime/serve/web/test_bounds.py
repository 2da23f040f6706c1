"""Clients that are slow, many or gone take no more than the bounds allow."""

import json
import threading
import time
from pathlib import Path

import pytest

from saq_qat_runtime.serve.settings import Bounds, ServeSettings
from tests.runtime.networks import images
from tests.runtime.serve.client import Address, Reply, binary_request
from tests.runtime.serve.conftest import Start

HEAD = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


def settings(**bounds: float) -> ServeSettings:
    return ServeSettings(threads=1, drain_seconds=0.0, bounds=Bounds(**bounds))  # type: ignore[arg-type]  # some are whole numbers


def infer(server: Address) -> Reply:
    return server.infer(*binary_request(images(1)))


def hold_engine(server: Address) -> threading.Event:
    """Make the engine wait for the event that is returned."""
    model = server.serving.catalogue.find("tiny")
    opened, run = threading.Event(), model._batcher._run

    def waiting(batch: object) -> object:
        opened.wait(20)
        return run(batch)

    model._batcher._run = waiting
    return opened


def seconds_until_closed(server: Address, sent: bytes, trickle: bytes = b"") -> tuple[float, bytes]:
    """After how many seconds the server closes a connection, and what it said."""
    with server.connect() as connection:
        connection.settimeout(0.1)
        start, heard = time.monotonic(), b""
        connection.sendall(sent)
        while time.monotonic() - start < 20:
            try:
                if trickle:
                    connection.sendall(trickle)
                chunk = connection.recv(1000)
                heard += chunk
                if not chunk:
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        return time.monotonic() - start, heard


@pytest.mark.parametrize(("sent", "trickle"), [(b"", b""), (b"GET / HT", b""), (b"GET /", b"x")])
def test_a_head_that_does_not_come_is_cut_off(
    start: Start, integer_bundle: Path, sent: bytes, trickle: bytes
) -> None:
    server = start(integer_bundle, settings(header_seconds=0.3))
    seconds, heard = seconds_until_closed(server, sent, trickle)
    assert 0.2 < seconds < 5
    assert heard == b""
    assert infer(server).status == 200


@pytest.mark.parametrize("trickle", [b"", b"x"])
def test_a_body_that_does_not_come_hears_408(start: Start, integer_bundle: Path, trickle: bytes) -> None:
    server = start(integer_bundle, settings(body_seconds=0.3))
    seconds, heard = seconds_until_closed(server, HEAD + b"x", trickle)
    assert b" 408 " in heard
    assert b"0.3 s" in heard
    assert seconds < 10
    assert infer(server).status == 200
    assert server.serving.admission.requests == 0


def test_an_answer_that_is_not_taken_is_cut_off(start: Start, integer_bundle: Path) -> None:
    server = start(integer_bundle, settings(send_seconds=0.3))
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 4000)
        end = time.monotonic() + 15
        while server.server.server_state.connections and time.monotonic() < end:
            time.sleep(0.05)
        assert not server.server.server_state.connections
    assert infer(server).status == 200


def test_more_connections_than_allowed_hear_503(start: Start, integer_bundle: Path) -> None:
    server = start(integer_bundle, settings(connections=3))
    held = [server.connect() for _ in range(3)]
    time.sleep(0.2)
    reply = server.ask("GET", "/v2/health/live")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert "connections" in reply.json["error"]
    for connection in held:
        connection.close()
    time.sleep(0.2)
    assert infer(server).status == 200


def test_more_requests_than_allowed_hear_503_and_the_others_are_answered(
    start: Start, integer_bundle: Path
) -> None:
    server = start(integer_bundle, settings(requests=4))
    opened = hold_engine(server)
    replies: list[Reply] = []
    clients = [threading.Thread(target=lambda: replies.append(infer(server))) for _ in range(4)]
    for client in clients:
        client.start()
    end = time.monotonic() + 10
    while server.serving.admission.requests < 4 and time.monotonic() < end:
        time.sleep(0.01)
    refused = infer(server)
    assert refused.status == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert server.ask("GET", "/v2/health/ready").status == 200
    opened.set()
    for client in clients:
        client.join(20)
    assert [reply.status for reply in replies] == [200] * 4
    assert infer(server).status == 200


def test_bodies_that_do_not_come_take_nobodys_place(start: Start, integer_bundle: Path) -> None:
    server = start(integer_bundle, settings(requests=2))
    slow = [server.connect() for _ in range(6)]
    for connection in slow:
        connection.sendall(HEAD + b"xxx")
    end = time.monotonic() + 10
    while server.serving.admission._buffered < 18 and time.monotonic() < end:
        time.sleep(0.01)
    assert server.serving.admission._buffered == 18
    assert [infer(server).status for _ in range(3)] == [200] * 3
    for connection in slow:
        connection.close()


def test_bodies_of_all_requests_together_are_bounded(start: Start, integer_bundle: Path) -> None:
    server = start(integer_bundle, settings(buffered_bytes=50_000))
    with server.connect() as slow:
        slow.sendall(HEAD + bytes(49_900))
        time.sleep(0.3)
        reply = infer(server)
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    time.sleep(0.3)
    assert infer(server).status == 200


@pytest.mark.parametrize("asks", [False, True])
def test_an_answer_that_takes_too_long_is_504_at_the_deadline(
    start: Start, integer_bundle: Path, asks: bool
) -> None:
    server = start(integer_bundle, settings(deadline=20.0 if asks else 0.3))
    opened = hold_engine(server)
    body, length = binary_request(images(1))
    if asks:
        request = json.loads(body[:length])
        request["parameters"]["timeout"] = 300_000
        head = json.dumps(request).encode()
        body, length = head + body[length:], len(head)
    begin = time.monotonic()
    reply = server.infer(body, length)
    assert reply.status == 504
    assert 0.25 < time.monotonic() - begin < 5
    opened.set()
    assert infer(server).status == 200


def test_a_client_that_leaves_frees_its_place(start: Start, integer_bundle: Path) -> None:
    server = start(integer_bundle, settings(requests=2))
    opened = hold_engine(server)
    body, length = binary_request(images(1))
    head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {length}\r\n"
    for _ in range(6):
        with server.connect() as connection:
            connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(0.1)
        end = time.monotonic() + 5
        while server.serving.admission.requests and time.monotonic() < end:
            time.sleep(0.01)
        assert server.serving.admission.requests == 0
    opened.set()
    assert infer(server).status == 200


def test_a_client_that_waits_to_be_told_is_told_no(start: Start, integer_bundle: Path) -> None:
    server = start(integer_bundle, settings(body_bytes=1000))
    with server.connect() as connection:
        connection.sendall(HEAD[:-2] + b"Expect: 100-continue\r\n\r\n")
        begin = time.monotonic()
        assert b" 413 " in connection.recv(1000)
        assert time.monotonic() - begin < 1.5
