"""Bodies that are small to send and costly to take."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache

__all__ = ["PICTURE_BOMBS", "packed", "png", "zipped"]

_MEBIBYTE = 1 << 20


@cache
def packed(content: bytes, count: int, window_bits: int = zlib.MAX_WBITS) -> bytes:
    """`content` `count` times, as deflate, or as gzip with window bits of 31."""
    packer = zlib.compressobj(1, wbits=window_bits)
    return packer.compress(content * count) + packer.flush()


@cache
def zipped() -> bytes:
    """An archive of eight million zeros."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("picture.png", bytes(8 * _MEBIBYTE))
    return stream.getvalue()


def png(width: int, height: int, pixels: bytes, *, before: bytes = b"") -> bytes:
    """A greyscale PNG that says it has so many pixels, and holds `pixels` as its packed data."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _eight_pixels(before: bytes) -> bytes:
    return png(8, 8, packed(bytes(9), 8), before=before)


def _profile() -> bytes:
    return _chunk(b"iCCP", b"k\0\0" + packed(bytes(1024), 8 * 1024))


def _texts(count: int) -> bytes:
    return _chunk(b"iTXt", b"k\0\1\0\0\0" + packed(bytes(1024), 1000)) * count


def _tags() -> bytes:
    tags = b"".join(struct.pack("<HHII", 1000 + each, 1, 800_000, 8) for each in range(4000))
    return b"II*\0" + struct.pack("<IH", 8, 4000) + tags + bytes(850_000)


PICTURE_BOMBS: dict[str, Callable[[], bytes]] = {
    "an archive": zipped,
    "PNG of 2^31 x 2^31 pixels": lambda: png(2**31 - 1, 2**31 - 1, b""),
    "PNG of 30,000 x 30,000 pixels": lambda: png(30_000, 30_000, packed(bytes(1024), 1024)),
    "PNG with packed text of 8 MiB": lambda: _eight_pixels(
        _chunk(b"zTXt", b"k\0\0" + packed(bytes(1024), 8 * 1024))
    ),
    "PNG with international text of 8 MiB": lambda: _eight_pixels(
        _chunk(b"iTXt", b"k\0\1\0\0\0" + packed(bytes(1024), 8 * 1024))
    ),
    "PNG with 100 texts of 1 MB": lambda: _eight_pixels(_texts(100)),
    "PNG with a colour profile of 8 MiB": lambda: _eight_pixels(_profile()),
    "PNG whose pixels are cut short": lambda: png(64, 64, packed(random.Random(0).randbytes(65), 64)[:40]),
    "PNG of 70,000 empty chunks": lambda: _eight_pixels(_chunk(b"prVt", b"") * 70_000),
    "PNG whose pixels are in 70,000 pieces": lambda: _eight_pixels(_chunk(b"IDAT", b"") * 70_000),
    "PPM with 400,000 comments in its header": lambda: (
        b"P6\n" + b"#\n" * 400_000 + b"8 8\n255\n" + bytes(192)
    ),
    "PPM with comments among its pixels": lambda: b"P3\n300 300\n255\n" + b"#\n" * 60_000 + b"1 " * 270_000,
    "PPM of another depth": lambda: b"P6\n500 500\n254\n" + bytes(750_000),
    "JPEG of 200,000 segments": lambda: b"\xff\xd8" + b"\xff\xe5\x00\x02" * 200_000,
    "GIF of 400,000 blocks": lambda: b"GIF89a\4\0\4\0\0\0\0!\xfe" + b"\1x" * 400_000,
    "TIFF whose tags all name the same bytes": _tags,
    "noise": lambda: random.Random(0).randbytes(5000),
}
"""What is no picture, or more of one than may be, each a function that gives its bytes."""
