"""Whether a path leads to a regular file: a pipe or a device is never opened, for it may never end."""

import errno
import stat
from pathlib import Path

__all__ = ["read_regular", "require_regular"]

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: as of ``require_regular``; or it cannot be read, has more than ``most`` bytes, or more than
            fit the memory, as ``strerror`` says.
    """
    require_regular(path)
    size = path.stat().st_size
    if most is not None and size > most:
        rule = f"it has {size:,} bytes, and such a file has {most:,} at most"
        raise OSError(errno.EFBIG, rule, str(path))
    try:
        return path.read_bytes()
    except MemoryError as error:
        raise OSError(errno.ENOMEM, f"its {size:,} bytes do not fit the memory", str(path)) from error


def require_regular(path: Path) -> None:
    """Refuse whatever is no regular file or link to one, before it is opened; opening a folder fails anyway.

    Raises:
        OSError: it is a pipe, a device or a socket, as ``strerror`` says; or there is nothing.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        rule = f"{kind}, where only a regular file is read; save it as a file"
        raise OSError(errno.EINVAL, rule, str(path))
