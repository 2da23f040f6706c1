"""Regular files alone: a pipe or a device would be waited for, and may never end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["open_regular", "read_regular"]

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading; nothing else is opened.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe, a device or a socket, as `strerror` says.
    """
    _require_regular(path, path.stat().st_mode)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _require_regular(path, os.fstat(file.fileno()).st_mode)  # another may have taken its place
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file; one of more than `most` is not read.

    Raises:
        OSError: as `open_regular`; or it has more than `most` bytes, or more than fit the memory, as
            `strerror` says.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            rule = f"it has {size:,} bytes, and such a file has {most:,} at most"
            raise OSError(errno.EFBIG, rule, str(path))
        try:
            return file.read(size)
        except MemoryError as error:
            raise OSError(errno.ENOMEM, f"its {size:,} bytes do not fit the memory", str(path)) from error


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        rule = f"{kind}, where only a regular file is read; save it as a file"
        raise OSError(errno.EINVAL, rule, str(path))
