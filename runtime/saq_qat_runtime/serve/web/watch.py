"""Around each request: counted, timed, its body read to the end; HEAD is GET; draining closes connections."""

import asyncio
from collections.abc import MutableMapping
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saq_qat_runtime.serve.web.serving import Serving

__all__ = ["Watch"]

_DISCARDED_BYTES = 256 * 1024 * 1024
_DISCARD_SECONDS = 2.0
_TOO_SLOW = 408


class Watch:
    """ASGI middleware, the outermost."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # uvicorn, which has its own scope, leaves the body out
        metrics = self._serving.metrics
        exchange = _Exchange(scope, receive, send, self._serving)
        start = perf_counter()
        try:
            with metrics.in_flight.track_inprogress():
                await self._app(scope, exchange.receive, exchange.send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            metrics.requests.labels(route, exchange.status or 500).inc()
            metrics.request_seconds.labels(route).observe(perf_counter() - start)


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, serving: Serving) -> None:
        self.status = 0
        self._receive = receive
        self._send = send
        self._serving = serving
        headers = dict(scope["headers"])
        waits = headers.get(b"expect", b"").lower() == b"100-continue"
        sends = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        self._body_comes = sends and not waits

    async def receive(self) -> Message:
        message = await self._receive()
        self._body_comes = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._body_comes and self.status != _TOO_SLOW:
                await self._discard()
            _add_headers(message, closing=self._serving.draining or self._body_comes)
        await self._send(message)

    async def _discard(self) -> None:
        """Read what the client is still sending, within bounds: a client that is cut off hears no answer."""
        left = _DISCARDED_BYTES
        try:
            async with asyncio.timeout(_DISCARD_SECONDS):
                while self._body_comes and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


def _add_headers(message: MutableMapping[str, Any], *, closing: bool) -> None:
    headers = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
    if closing:
        headers.append((b"connection", b"close"))
    message["headers"] = headers
