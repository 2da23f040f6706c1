"""Bodies of requests: read whole, within the bounds of one and of all together."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from starlette.requests import Request

from saq_qat_runtime.errors import InputError
from saq_qat_runtime.serve.refusals import OverloadError, Refusal, TooLargeError
from saq_qat_runtime.serve.settings import Bounds

__all__ = ["Admission", "Held", "read_body"]

_FIX = "Send fewer images in a request, or a smaller one (--max-body-mib allows more)."
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Admission:
    """How many requests are being answered, and how many bytes of bodies they hold. For one event loop.

    A request takes its place once its body is there: clients that are slow to send one hold a connection and
    bytes, which have bounds of their own, and keep nobody from being answered.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.requests = 0
        self._buffered = 0

    @contextmanager
    def enter(self) -> Iterator["Held"]:
        """What one request holds; raises OverloadError if there is no room, before its body is read."""
        self._check_room()
        held = Held(self)
        try:
            yield held
        finally:
            self.requests -= held.placed
            self._buffered -= held.size

    def place(self) -> None:
        """Count a request whose body is there; raises OverloadError beyond the bound."""
        self._check_room()
        self.requests += 1

    def grow(self, size: int) -> None:
        """Count `size` bytes more; raises OverloadError beyond the bound."""
        if self._buffered + size > self._bounds.buffered_bytes:
            raise OverloadError("Too many bytes of other requests are held already. Try later.")
        self._buffered += size

    def _check_room(self) -> None:
        if self.requests >= self._bounds.requests:
            raise OverloadError(f"{self.requests} requests are being answered already. Try later.")


class Held:
    """The bytes of one request that are held, and whether it has a place among those being answered."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size = 0
        self.placed = False

    def grow(self, size: int) -> None:
        """See `Admission.grow`."""
        self._admission.grow(size)
        self.size += size

    def place(self) -> None:
        """See `Admission.place`."""
        self._admission.place()
        self.placed = True


async def read_body(
    request: Request,
    held: Held,
    bounds: Bounds,
    elsewhere: Callable[[Callable[[], bytes]], Awaitable[bytes]],
) -> bytes:
    """The whole body, unpacked if it came as gzip or deflate; the request has its place from then on.

    elsewhere: gives what a call gives that would hold up the event loop.
    Raises Refusal: 408 for a client too slow, 413 for a body too large, 503 for too many of them, 415 for
    another encoding; InputError for a body that cannot be unpacked; ClientDisconnect if the client leaves.
    """
    try:
        async with asyncio.timeout(bounds.body_seconds):
            content = await _read(request, held, bounds)
    except TimeoutError:
        raise Refusal(408, f"The body did not arrive within {bounds.body_seconds:g} s.") from None
    held.place()
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return content
    if encoding not in _WINDOW_BITS:
        raise Refusal(415, f"Content-Encoding must be gzip, deflate or identity, got {encoding[:40]!r}.")
    unpacked = await elsewhere(lambda: _unpack(content, encoding, bounds))
    held.grow(len(unpacked))
    return unpacked


async def _read(request: Request, held: Held, bounds: Bounds) -> bytes:
    if {"content-length", "transfer-encoding"} <= set(request.headers):
        # A proxy before this server may believe the other of the two (RFC 9112, 6.3).
        raise InputError(
            "A request has a Content-Length or a Transfer-Encoding, this one has both. Send one."
        )
    rule = f"A body may have {bounds.body_bytes} bytes"
    announced = request.headers.get("content-length", "0")
    if int(announced) > bounds.body_bytes:  # h11 lets digits through only
        raise TooLargeError(f"{rule}, got {announced[:20]}. {_FIX}")
    content = bytearray()
    async for chunk in request.stream():
        held.grow(len(chunk))
        content += chunk
        if len(content) > bounds.body_bytes:
            raise TooLargeError(f"{rule}, got more. {_FIX}")
    return bytes(content)


def _unpack(content: bytes, encoding: str, bounds: Bounds) -> bytes:
    """What was packed, of at most `body_bytes`: a few bytes can unpack to billions."""
    unpacker = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        unpacked = unpacker.decompress(content, bounds.body_bytes + 1)
    except zlib.error as error:
        raise InputError(f"The body is no {encoding}: {error}.") from error
    if len(unpacked) > bounds.body_bytes:
        raise TooLargeError(f"A body may unpack to {bounds.body_bytes} bytes, this one unpacks to more.")
    if not unpacker.eof or unpacker.unused_data:
        raise InputError(f"The body is {encoding} that is cut short, or followed by something else.")
    return unpacked
