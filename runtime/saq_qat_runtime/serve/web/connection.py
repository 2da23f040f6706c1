"""One connection: uvicorn's, with a clock for clients that are slow to ask or to listen."""

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from saq_qat_runtime.serve.settings import Bounds

__all__ = ["BoundedConnection", "connection_class"]

_REASON = b'{"error": "Too many connections are open. Try later."}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_REASON), _REASON)
)
_LOOK_SECONDS = 0.05


class BoundedConnection(H11Protocol):
    """Cut off if the head of a request takes longer than `header_seconds`, or if what was sent is not taken
    within `send_seconds`; answered 503 at once beyond `connections`.

    A client that ends its half behind whole requests is answered; see `eof_received`. uvicorn itself has a
    clock between two requests only, and takes every end for a client that left.
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
        self._look_timer: asyncio.TimerHandle | None = None
        self._half_closed = False
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
        for timer in (self._head_timer, self._send_timer, self._look_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's: whether to keep the connection
        """Keep it if all that the client still wants is the answer to a whole request.

        TCP tells the end of one half and a client that left alike. So a client of HTTP/1.1, which must bear
        it (RFC 9110, 15.2), is sent an interim answer: where nobody listens any more, the system at the other
        end resets the connection, and the request is given up.
        """
        if not self._waits_for_answer():
            return False
        if not self._half_closed:
            self._half_closed = True
            if self.conn.our_state is h11.SEND_RESPONSE and self.conn.their_http_version != b"1.0":
                interim = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                self.transport.write(self.conn.send(interim) or b"")
            self._look_for_reset()
        return True

    def on_response_complete(self) -> None:
        """Close behind the last answer of a client that ended its half, and never wait for long to do so."""
        super().on_response_complete()
        if self._half_closed and not self._waits_for_answer():
            self.transport.close()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._cut_off_later()

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

    def _waits_for_answer(self) -> bool:
        """Whether a request that came whole is being answered."""
        return self._answering() and not self.cycle.more_body

    def _look_for_reset(self) -> None:
        """Nothing is read from a half that ended, so asyncio does not tell of a reset."""
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self._look_timer = self.loop.call_later(_LOOK_SECONDS, self._look_for_reset)

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
