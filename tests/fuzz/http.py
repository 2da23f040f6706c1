"""Bytes sent to a server: every answer is HTTP, none tells of a failure of the server, and it lives on."""

import contextlib
import io
import json
import re
import socket
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from PIL import Image

from saq_qat_runtime.serve.settings import Bounds, ServeSettings
from tests.fuzz.mutate import ODD_VALUES, damaged_bytes, damaged_text, damaged_tree
from tests.fuzz.surface import Case, Surface
from tests.runtime.networks import images
from tests.runtime.serve.client import Address, binary_request, json_request
from tests.runtime.serve.conftest import starting, write_bundle

__all__ = ["SURFACE"]

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_MAY_FAIL = (503, 504)
"""Statuses of 500 and more that SERVING.md promises: overload, and an answer that would come too late."""
_SECONDS, _PATIENCE = 20.0, 0.3
_LAST = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_INFER = "/v2/models/tiny/infer"
_PATHS = (
    "/", "/docs", "/metrics", "/predict", "/predict?top_k=3", "/predict?model=tiny", "/v2", "/v2/health/live",
    "/v2/health/ready", "/v2/models/tiny", "/v2/models/tiny/ready", "/v2/models/tiny/versions/1/infer",
    _INFER, "/v2/repository/index", "/v2/models/tiny/versions/1/ready", "/v2/models/tiny/config", "/models",
)  # fmt: skip  # one value a line is a page
_PARTS = (
    "%2e%2e", "..", "%00", "%", "%zz", "?", "&", "=", "#", "//", "é", "\x80", " ", "?top_k=", "9" * 400,
    "?model=", "\\", "/" * 3000, "?top_k=1&top_k=nan", "/versions/" + "9" * 30,
)  # fmt: skip  # one value a line is a page
_HEADERS = (
    ("Content-Encoding", ("gzip", "deflate", "br", "", "gzip, gzip", "identity")),
    ("Transfer-Encoding", ("chunked", "gzip, chunked", "identity", "Chunked")),
    (
        "Content-Type",
        ("application/json", "image/png", "multipart/form-data; boundary=x", "multipart/form-data", "é", ""),
    ),
    ("Inference-Header-Content-Length", ("0", "-1", "10", "99999999999", "x", "1e3", "", "٣")),
    ("Content-Length", ("0", "-1", "5", "99999999999", "x", "", "+5", "5, 5")),
    ("Expect", ("100-continue", "x")),
    ("Connection", ("close", "keep-alive", "Upgrade", "x" * 500)),
    ("Upgrade", ("websocket", "h2c")),
    ("Host", ("", "x" * 5000, "a b")),
    ("Accept", ("*/*", "text/html", "x" * 500)),
    ("X" * 200, ("é" * 100, "\x00", "a\tb")),
)


@dataclass
class _Request:
    """One request, before it is bytes."""

    method: str
    path: str
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)

    def bytes(self, random: Random) -> bytes:
        """As it goes over the connection, whole or in chunks."""
        headers, body = list(self.headers), self.body
        given = {name.lower(): value for name, value in headers}
        if given.get("transfer-encoding") == "chunked":
            body = b"".join(_chunk(random, body[start : start + 700]) for start in range(0, len(body), 700))
            body += random.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b""))
        elif "content-length" not in given:
            headers.append(("Content-Length", str(len(body) + random.choice((0, 0, 0, 0, -1, 1)))))
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join((*lines, "", "")).encode(errors="surrogatepass") + body


def _chunk(random: Random, piece: bytes) -> bytes:
    size = random.choice((f"{len(piece):x}",) * 8 + ("-1", "ffffffffffffffff", "x", f"{len(piece):x};a=b"))
    return size.encode() + b"\r\n" + piece + b"\r\n"


def _inference(random: Random) -> _Request:
    """JSON, or JSON with tensors behind it, with members harmed."""
    headers = [("Host", "x")]
    if random.random() < 0.5:
        tree = damaged_tree(random, json.loads(json_request(images(1))))
        text = json.dumps(tree)
        text = damaged_text(random, text) if random.random() < 0.2 else text
        return _Request("POST", _INFER, text.encode(errors="surrogatepass"), headers)
    body, length = binary_request(images(2), binary_output=random.random() < 0.5)
    tree, data = json.loads(body[:length]), body[length:]
    if random.random() < 0.7:
        tree = damaged_tree(random, tree, (*ODD_VALUES, "FP32", "INT64", "BYTES", "BOOL", 1536, 768))
    head = json.dumps(tree).encode(errors="surrogatepass")
    headers.append(("Inference-Header-Content-Length", str(len(head) + random.choice((0, 0, 0, 1, -1)))))
    return _Request(
        "POST", _INFER, head + (damaged_bytes(random, data) if random.random() < 0.3 else data), headers
    )


def _picture(random: Random) -> _Request:
    stream = io.BytesIO()
    Image.new("RGB", (random.randrange(1, 40), 9), (1, 2, 3)).save(
        stream, random.choice(("PNG", "JPEG", "GIF", "WEBP"))
    )
    content = stream.getvalue()
    content = damaged_bytes(random, content) if random.random() < 0.7 else content
    headers = [("Host", "x")]
    match random.randrange(3):
        case 0:
            headers.append(("Content-Type", "image/png"))
        case 1:
            headers.append(("Content-Type", "application/json"))
            content = json.dumps(damaged_tree(random, {"image": b64encode(content).decode()})).encode(
                errors="replace"
            )
        case _:
            headers.append(("Content-Type", "multipart/form-data; boundary=x"))
            form = (
                b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
                + content
                + b"\r\n--x--\r\n"
            )
            content = damaged_bytes(random, form) if random.random() < 0.5 else form
    return _Request("POST", random.choice(("/predict", "/predict?top_k=3")), content, headers)


def _other(random: Random) -> _Request:
    method = random.choice(("GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE", "CONNECT", "x", ""))
    path = random.choice(_PATHS)
    if random.random() < 0.6:
        place = random.randrange(len(path) + 1)
        path = path[:place] + random.choice(_PARTS) + path[place:]
    return _Request(method, path, random.choice((b"", b"{}", b"x" * 3000)), [("Host", "x")])


def _sent(random: Random) -> bytes:
    """One to three requests in a row, whole or damaged."""
    made = b""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        request = random.choice((_inference, _inference, _picture, _other))(random)
        for name, values in random.sample(_HEADERS, random.choice((0, 0, 1, 2))):
            request.headers.append((name, random.choice(values)))
        if ("Content-Encoding", "deflate") in request.headers and random.random() < 0.7:
            request.body = zlib.compress(random.choice((request.body, bytes(200_000_000 >> 4))))
        made += request.bytes(random)
    return damaged_bytes(random, made) if random.random() < 0.25 else made


def _answers(address: Address, content: bytes) -> bytes:
    """What comes back until the server closes: a last request asks for it, unless a body swallows it."""
    # The server need not listen to the end.
    with address.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(content + _LAST)
        connection.settimeout(_PATIENCE)
        found = b""
        while True:
            try:
                received = connection.recv(1 << 16)
            except TimeoutError:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(_SECONDS)
                continue
            found += received
            if not received:
                return found
    return b""


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    root = write_bundle(folder / "tiny")
    bounds = Bounds(body_bytes=200_000, header_seconds=5.0, body_seconds=5.0)
    servers = starting()
    address = next(servers)(root, ServeSettings(threads=1, drain_seconds=0.0, bounds=bounds))
    whole, length = binary_request(images(2))
    expected = address.infer(whole, length).body

    def case(random: Random) -> str:
        content = _sent(random)
        (folder / "input.bin").write_bytes(content)
        answers = _answers(address, content)
        statuses = [int(status) for status in _STATUS.findall(answers)]
        failed = [status for status in statuses if status >= 500 and status not in _MAY_FAIL]
        assert not failed and b"Traceback" not in answers, answers[:2000]
        assert not answers or answers.startswith(b"HTTP/1.1 "), answers[:200]
        assert address.infer(whole, length).body == expected, "other answers than before"
        assert address.serving.catalogue.ready
        return f"{statuses[0] // 100}xx" if statuses else "closed"

    yield case
    next(servers, None)


SURFACE = Surface("http", _opened, mebibytes=512)
