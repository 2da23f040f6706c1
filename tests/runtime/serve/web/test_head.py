"""HEAD gives what GET gives but for the body (RFC 9110, 9.3.2)."""

import pytest

from tests.runtime.serve.client import Address

_PATHS = (
    "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/tiny", "/v2/models/tiny/ready",
    "/v2/models/tiny/config", "/v2/models/tiny/versions/1", "/models", "/", "/docs", "/v2/models/other",
)  # fmt: skip  # one value a line is a page


@pytest.mark.parametrize("path", _PATHS)
def test_it_is_get_without_the_body(server: Address, path: str) -> None:
    full, bare = server.ask("GET", path), server.ask("HEAD", path)
    assert full.body
    assert bare.body == b""
    assert bare.status == full.status
    assert {**bare.headers, "date": ""} == {**full.headers, "date": ""}


def test_the_connection_goes_on_behind_it(server: Address) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"HEAD /v2 HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        heard = b""
        while not heard.endswith(b"}"):
            heard += connection.recv(65536)
    assert heard.count(b"HTTP/1.1 200 ") == 2
    assert heard.count(b"{") == 1


def test_what_is_posted_has_none(server: Address) -> None:
    reply = server.ask("HEAD", "/predict")
    assert (reply.status, reply.headers["allow"], reply.body) == (405, "POST", b"")
    assert server.ask("POST", "/v2").headers["allow"] == "GET, HEAD"
