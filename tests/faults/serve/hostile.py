"""Clients that stall, leave, or send what nobody should take: each a function that says what it heard."""

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tests.faults.serve.payloads import PICTURE_BOMBS, packed
from tests.runtime.networks import images
from tests.runtime.serve.client import Address, json_request

__all__ = ["FAULTS", "HOLDING", "Fault", "Target", "exchange", "statuses"]

_PATIENCE = 30.0
_HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"
_MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Target:
    """A server and a model of it. body: a request that is right; json_length: how much of it is JSON."""

    address: Address
    model: str
    body: bytes
    json_length: int

    def head(self, *lines: str) -> bytes:
        """The head of an inference request, with further header lines."""
        first = f"POST /v2/models/{self.model}/infer HTTP/1.1"
        return "\r\n".join([first, "Host: x", *lines, "", ""]).encode()

    def request(self) -> bytes:
        """A whole request that is right."""
        length = f"Inference-Header-Content-Length: {self.json_length}"
        return self.head(f"Content-Length: {len(self.body)}", length) + self.body

    def chunked(self, *chunks: bytes) -> bytes:
        """An inference request in chunks, which may be wrong."""
        return self.head("Transfer-Encoding: chunked") + b"".join(chunks)


@dataclass(frozen=True)
class Fault:
    """act: does it, and gives the statuses heard, none if the connection just ended; may: those allowed."""

    act: Callable[[Target], tuple[int, ...]]
    may: frozenset[tuple[int, ...]]


def statuses(heard: bytes) -> tuple[int, ...]:
    """Status codes of final answers in what a server sent, in their order."""
    found = (int(answer[:3]) for answer in heard.split(b"HTTP/1.1 ")[1:])
    return tuple(status for status in found if status >= 200)


def exchange(
    target: Target,
    *parts: bytes,
    trickle: bytes = b"",
    half_close: bool = False,
    enough: int = 1,
) -> tuple[int, ...]:
    """Send `parts`, then listen until the server ends the connection, or `enough` answers came.

    trickle: is sent every 50 ms while nothing comes. half_close: end one half behind the parts.
    """
    heard = b""
    # A server need not listen to the end, and may cut off what it is sent.
    with target.address.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"".join(parts))
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.05 if trickle else _PATIENCE)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                chunk = connection.recv(65536)
            except TimeoutError:
                connection.sendall(trickle)
                continue
            heard += chunk
            if not chunk or (heard.endswith(b"}") and len(statuses(heard)) >= enough):
                break
    return statuses(heard)


def _leave(target: Target, *parts: bytes, reset: bool = False, pause: float = 0.0) -> tuple[int, ...]:
    """Send `parts` and leave without listening; with a reset, the server hears of it at once."""
    with target.address.connect() as connection:
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(ConnectionError):  # the server may have had enough before
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
    return ()


def _never_read(target: Target) -> tuple[int, ...]:
    """Ask for more than fits on the way, take nothing, and wait to be cut off."""
    with target.address.connect() as connection:
        connection.settimeout(_PATIENCE)
        with contextlib.suppress(OSError):  # being cut off is what is waited for
            while True:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    return ()


def _infer(target: Target, body: bytes, encoding: str | None = None) -> tuple[int, ...]:
    headers = {"Connection": "close"} | ({} if encoding is None else {"Content-Encoding": encoding})
    with contextlib.suppress(ConnectionError):  # a refusal may close before the body is sent
        return (target.address.ask("POST", f"/v2/models/{target.model}/infer", body, headers).status,)
    return ()


def _picture(make: Callable[[], bytes], target: Target, kind: str = "image/png") -> tuple[int, ...]:
    return (target.address.ask("POST", "/predict", make(), {"Content-Type": kind}).status,)


def _for_ever(target: Target) -> Iterator[bytes]:
    yield target.chunked()
    for _ in range(64):
        yield b"10000\r\n" + bytes(0x10000) + b"\r\n"


def _base64() -> bytes:
    return json.dumps({"image": "A" * 10**6}).encode()


def _of_lists(count: int) -> bytes:
    return b'{"inputs": [' + b"[]," * count + b"[]]}"


def _fault(act: Callable[[Target], tuple[int, ...]], *may: int | tuple[int, ...]) -> Fault:
    return Fault(act, frozenset(each if isinstance(each, tuple) else (each,) for each in may))


_ENDED: tuple[int, ...] = ()
HOLDING = {
    "a head that stops": _fault(lambda at: exchange(at, b"GET /v2 HT"), _ENDED),
    "a head that trickles": _fault(lambda at: exchange(at, b"GET /", trickle=b"x"), _ENDED),
    "a body that stops": _fault(lambda at: exchange(at, at.head("Content-Length: 9"), b"{"), 408),
    "a body that trickles": _fault(
        lambda at: exchange(at, at.head("Content-Length: 99999"), trickle=b" "), 408
    ),
    "chunks that trickle": _fault(lambda at: exchange(at, at.chunked(), trickle=b"1\r\n \r\n"), 408),
    "an answer that is not read": _fault(_never_read, _ENDED),
}
"""Faults that last as long as the server lets them."""

FAULTS = {
    **HOLDING,
    "leaves before its head": _fault(_leave, _ENDED),
    "leaves amid its head": _fault(lambda at: _leave(at, b"POST /v2/mod"), _ENDED),
    "leaves amid its body": _fault(lambda at: _leave(at, at.request()[:-9]), _ENDED),
    "leaves amid its body with a reset": _fault(lambda at: _leave(at, at.request()[:-9], reset=True), _ENDED),
    "leaves behind its request": _fault(lambda at: _leave(at, at.request()), _ENDED),
    "leaves with a reset": _fault(lambda at: _leave(at, at.request(), reset=True), _ENDED),
    "leaves amid the answer": _fault(
        lambda at: _leave(at, _HEALTH + b"\r\n", reset=True, pause=0.01), _ENDED
    ),
    "ends its half behind a request": _fault(
        lambda at: exchange(at, at.request(), half_close=True, enough=9), 200, 503
    ),
    "ends its half amid a request": _fault(
        lambda at: exchange(at, at.request()[:-9], half_close=True), _ENDED
    ),
    "gzip of 4 MiB": _fault(lambda at: _infer(at, packed(b"[]", 2 * _MEBIBYTE, 31), "gzip"), 413),
    "deflate of 4 MiB": _fault(lambda at: _infer(at, packed(bytes(4), _MEBIBYTE), "deflate"), 413),
    "deflate of 300,000 lists": _fault(lambda at: _infer(at, packed(b"[],", 300_000), "deflate"), 400),
    "gzip that is none": _fault(lambda at: _infer(at, b"\x1f\x8b" + bytes(99), "gzip"), 400),
    "JSON nested deep": _fault(lambda at: _infer(at, b"[" * 500_000), 400),
    "JSON nested deep in what is ignored": _fault(
        lambda at: _infer(at, b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}"), 400
    ),
    "JSON of 300,000 lists": _fault(lambda at: _infer(at, _of_lists(300_000)), 400),
    "JSON with a number of a million digits": _fault(
        lambda at: _infer(at, b'{"inputs": 1' + b"0" * 10**6 + b"}"), 400, 413
    ),
    "JSON with numbers beyond float": _fault(
        lambda at: _infer(at, json_request(images(1)).replace(b'"data": [', b'"data": [1e999, ')), 400
    ),
    "JSON in base64 of a bomb": _fault(lambda at: _picture(_base64, at, "application/json"), 400, 413),
    "chunks for ever": _fault(lambda at: exchange(at, *_for_ever(at)), 413, _ENDED),
    "10,000 headers": _fault(lambda at: exchange(at, _HEALTH + b"a:b\r\n" * 10_000 + b"\r\n"), 200),
    "100,000 headers": _fault(lambda at: exchange(at, _HEALTH + b"a:b\r\n" * 100_000 + b"\r\n"), 400, _ENDED),
    "a header of 300,000 bytes": _fault(
        lambda at: exchange(at, _HEALTH + b"a: " + b"b" * 300_000 + b"\r\n\r\n"), 400, _ENDED
    ),
    "a method of 60,000 letters": _fault(
        lambda at: exchange(at, b"A" * 60_000 + b" /v2 HTTP/1.1\r\nHost: x\r\n\r\n"), 405
    ),
    "HTTP/1.0": _fault(lambda at: exchange(at, b"GET /v2/health/live HTTP/1.0\r\n\r\n"), 200),
    "HTTP/0.9": _fault(lambda at: exchange(at, b"GET /v2/health/live\r\n\r\n"), 400),
    "fifty requests at once": _fault(
        lambda at: exchange(at, (_HEALTH + b"\r\n") * 50, enough=50), (200,) * 50
    ),
    "another protocol": _fault(lambda at: exchange(at, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400),
    "a chunk size that is none": _fault(lambda at: exchange(at, at.chunked(b"zz\r\n")), 400),
    "a negative chunk size": _fault(lambda at: exchange(at, at.chunked(b"-5\r\nx\r\n")), 400),
    "a chunk size of 30 digits": _fault(lambda at: exchange(at, at.chunked(b"f" * 30 + b"\r\nx\r\n")), 400),
    "two lengths": _fault(
        lambda at: exchange(at, at.head("Content-Length: 5", "Content-Length: 6"), b"12345"), 400
    ),
    **{name: _fault(partial(_picture, make), 400) for name, make in PICTURE_BOMBS.items()},
}
"""Every fault of a client, by its name, for servers whose bodies have 1 MiB at most."""
