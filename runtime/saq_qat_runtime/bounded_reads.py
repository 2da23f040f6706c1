"""A file of an image in memory that is read a bounded number of times.

Pillow reads headers in Python, piece by piece: comments of PPM byte by byte, chunks of PNG, segments of JPEG
and blocks of GIF one at a time. A file of a few kilobytes once packed can hold millions of them, and cost
seconds or minutes before its size is known. Tags of TIFF may all name the same bytes, each a copy of them.
"""

import io

from saq_qat_runtime.errors import InputError

__all__ = ["HEADER_READS", "BoundedReads"]

HEADER_READS = 10_000
_MEBIBYTE = 1 << 20
_HEADER = "header"


class BoundedReads(io.BytesIO):
    """The bytes `content`. Its header is read HEADER_READS times at most, and hardly twice as a whole.

    `read` raises InputError beyond that, or beyond what `allow` sets.
    """

    def __init__(self, content: bytes | bytearray) -> None:
        super().__init__(content)
        self._what = _HEADER
        self._reads: int | None = HEADER_READS
        self._bytes = 2 * len(content) + _MEBIBYTE

    def allow(self, reads: int | None) -> None:
        """From here on, for the pixels: so many reads, None for any number."""
        self._what = "file"
        self._reads = reads

    def read(self, size: int | None = -1, /) -> bytes:
        """See io.BytesIO."""
        content = super().read(size)
        if self._reads is not None:
            self._reads -= 1
        if self._what == _HEADER:
            self._bytes -= len(content)
        if self._bytes < 0 or (self._reads is not None and self._reads < 0):
            rule = f"The {self._what} of the image is in too many pieces (comments, chunks, segments or tags)"
            raise InputError(f"{rule}. Save the image again without them, as PNG or JPEG.")
        return content
