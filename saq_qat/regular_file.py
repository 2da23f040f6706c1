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


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file; raises OSError as ``require_regular`` does, or if it cannot be read."""
    require_regular(path)
    return path.read_bytes()


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
