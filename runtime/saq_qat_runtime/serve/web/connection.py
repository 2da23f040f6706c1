"""One connection: uvicorn's, with a clock for clients that are slow to ask or to listen."""

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from saq_qat_runtime.serve.settings import Bounds

__all__ = ["BoundedConnection", "connection_class"]

_REASON = b'{"error": "Too many connections are open. Try later."}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_REASON), _REASON)
)


class BoundedConnection(H11Protocol):
    """Cut off if the head of a request takes longer than `header_seconds`, or if what was sent is not taken
    within `send_seconds`; answered 503 at once beyond `connections`.

    uvicorn itself has a clock between two requests only.
    """

    bounds = Bounds()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the clock of the first request."""
        super().connection_made(transport)
        # Head and body of an answer are two small writes; the second would wait 40 ms for the client to
        # acknowledge the first. asyncio sets this for sockets of its own making only.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.bounds.connections:
            transport.write(_FULL)
            transport.close()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Restart the clock unless a request is being answered."""
        super().data_received(data)
        if not self.transport.is_closing():
            self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock."""
        for timer in (self._head_timer, self._send_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not take what it was sent."""
        super().pause_writing()
        self._cut_off_later()

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, and cut it off if the client takes no notice."""
        super().timeout_keep_alive_handler()
        self._cut_off_later()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch_head(self) -> None:
        """One clock from the first byte to the end of the head; bytes that trickle in do not restart it."""
        if self._answering():
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.bounds.header_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._answering():
            self.transport.abort()

    def _cut_off_later(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
        self._send_timer = self.loop.call_later(self.bounds.send_seconds, self.transport.abort)


def connection_class(bounds: Bounds) -> type[BoundedConnection]:
    """The class of connections with these bounds; uvicorn makes the objects."""
    members: dict[str, Any] = {"bounds": bounds}
    return type("Connection", (BoundedConnection,), members)
