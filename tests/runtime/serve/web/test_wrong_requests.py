"""Requests that are wrong get 4xx and a reason, and the server goes on."""

import base64
import contextlib
import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saq_qat_runtime.serve.settings import Bounds, ServeSettings
from saq_qat_runtime.session import Session
from tests.runtime.networks import SIDE, images
from tests.runtime.serve.client import Address, Reply, binary_request, json_request
from tests.runtime.serve.conftest import Start


def check_healthy(server: Address, session: Session) -> None:
    """It still answers, and rightly."""
    body, length = binary_request(images(2))
    reply = server.infer(body, length)
    assert reply.status == 200
    start = int(reply.headers["inference-header-content-length"])
    assert reply.body[start:] == session.run(images(2)).tobytes()
    assert server.ask("GET", "/v2/health/live").status == 200


def check_refused(reply: Reply, status: int, words: str = "") -> None:
    assert reply.status == status, reply.body
    assert set(reply.json) == {"error"}
    assert words in reply.json["error"]
    assert "Traceback" not in reply.json["error"]


def picture(size: tuple[int, int] = (20, 12), kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


NAN = images(1)
NAN[0, 0, 0, 0] = np.nan
WRONG = {
    "no JSON": (b"{", None, 400, "not JSON"),
    "one image too many": (json_request(images(9)), None, 400, "may hold 8 images, got 9"),
    "no image": (json_request(images(0)), None, 400, "at least 1 image"),
    "another shape": (json_request(images(1), shape=[1, 3, SIDE, SIDE + 1]), None, 400, "shape must be"),
    "an enormous shape": (json_request(images(1), shape=[10**18, 3, SIDE, SIDE]), None, 400, "takes"),
    "NaN": (*binary_request(NAN), 400, "finite"),
    "a header too long": (json_request(images(1)), 10**9, 400, "Inference-Header-Content-Length"),
}


@pytest.mark.parametrize(("body", "length", "status", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_inference_request(
    server: Address, integer_session: Session, body: bytes, length: int | None, status: int, words: str
) -> None:
    check_refused(server.infer(body, length), status, words)
    check_healthy(server, integer_session)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/tiny/versions/x", 404),
        ("POST", "/v2/models/..%2f..%2fetc/infer", 404),
        ("GET", "/v2/models/tiny/infer", 405),
        ("DELETE", "/v2/models/tiny", 405),
        ("PUT", "/predict", 405),
        ("POST", "/v2/repository/models/tiny/load", 403),
        ("POST", "/predict?top_k=many", 400),
        ("POST", "/predict?model=other", 404),
    ],
)
def test_a_wrong_address_or_method(server: Address, method: str, path: str, status: int) -> None:
    check_refused(server.ask(method, path, b"x"), status)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", "image/png", "empty"),
        (b"no picture at all", "image/jpeg", "Not a readable image"),
        (picture()[:200], "image/png", "decoded"),
        (picture((200, 1)), "image/png", "longer than 100:1"),
        (b"{", "application/json", "not JSON"),
        (b'{"image": 3}', "application/json", "in base64"),
        (b'{"image": "%%%"}', "application/json", "not base64"),
        (b'{"url": "http://127.0.0.1/"}', "application/json", "No address is read"),
        (b"no form", "multipart/form-data; boundary=x", "cannot be read"),
        (b"no form", "multipart/form-data", "cannot be read"),
        (b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\n1\r\n--x--\r\n',
         "multipart/form-data; boundary=x", "one file in the field 'file'"),
    ],
)  # fmt: skip  # one value a line is a page
def test_what_is_no_picture(
    server: Address, integer_session: Session, body: bytes, kind: str, words: str
) -> None:
    check_refused(server.ask("POST", "/predict", body, {"Content-Type": kind}), 400, words)
    check_healthy(server, integer_session)


@pytest.mark.parametrize("form", ["file", "form", "json"])
def test_a_picture_gets_the_labels_that_the_session_gives(
    server: Address, integer_session: Session, form: str
) -> None:
    content, kind, body = picture(), "image/png", picture()
    if form == "json":
        body, kind = json.dumps({"image": base64.b64encode(content).decode()}).encode(), "application/json"
    if form == "form":
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        body, kind = head + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
    reply = server.ask("POST", "/predict?top_k=3", body, {"Content-Type": kind})
    assert reply.status == 200, reply.body
    (expected,) = integer_session.predict(content, top_k=3)
    found = [(each["label"], each["index"], each["probability"]) for each in reply.json["predictions"]]
    assert found == [(each.label, each.index, each.probability) for each in expected]
    assert set(reply.json["milliseconds"]) == {"total", "decode", "queue", "compute"}


@pytest.fixture
def narrow(start: Start, integer_bundle: Path) -> Address:
    """A server with small bounds."""
    bounds = Bounds(body_bytes=20_000, pixels=1000)
    return start(integer_bundle, ServeSettings(threads=1, drain_seconds=0.0, bounds=bounds))


def test_a_body_too_large_hears_413_and_not_a_broken_pipe(narrow: Address, integer_session: Session) -> None:
    check_refused(narrow.infer(bytes(70_000)), 413, "20000 bytes")
    check_refused(narrow.ask("POST", "/v2/models/tiny/infer", bytes(10_000_000)), 413)
    chunks = narrow.connect()
    head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks.sendall(head + (b"4000\r\n" + bytes(0x4000) + b"\r\n") * 3)
    assert b" 413 " in chunks.recv(100)
    chunks.close()
    check_healthy(narrow, integer_session)


def test_a_few_bytes_that_unpack_to_many_are_refused(narrow: Address, integer_session: Session) -> None:
    packed = zlib.compress(bytes(10_000_000))
    assert len(packed) < 20_000
    reply = narrow.ask("POST", "/v2/models/tiny/infer", packed, {"Content-Encoding": "deflate"})
    check_refused(reply, 413, "unpack")
    check_healthy(narrow, integer_session)


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 400), ("deflate", 400), ("br", 415)])
def test_a_body_that_cannot_be_unpacked(server: Address, encoding: str, status: int) -> None:
    reply = server.ask("POST", "/v2/models/tiny/infer", b"no such thing", {"Content-Encoding": encoding})
    check_refused(reply, status)
    cut = zlib.compress(json_request(images(1)))[:-5]
    check_refused(server.ask("POST", "/v2/models/tiny/infer", cut, {"Content-Encoding": "deflate"}), 400)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(narrow: Address) -> None:
    check_refused(narrow.ask("POST", "/predict", picture((50, 21))), 400, "1,000 pixels")
    assert narrow.ask("POST", "/predict", picture((40, 25))).status == 200


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
             b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
             b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 300_000 + b"\r\n\r\n"],
)  # fmt: skip  # one value a line is a page
def test_what_is_no_http(server: Address, integer_session: Session, line: bytes) -> None:
    with server.connect() as connection:
        with contextlib.suppress(ConnectionError):  # it need not listen to the end
            connection.sendall(line)
        assert b"HTTP/1.1 4" in connection.recv(100)
    check_healthy(server, integer_session)


def test_two_ways_to_say_where_a_body_ends_are_one_too_many(
    server: Address, integer_session: Session
) -> None:
    body = json_request(images(1))
    head = (
        "POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with server.connect() as connection:
        connection.sendall(head.encode() + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"this one has both" in answer
    check_healthy(server, integer_session)
