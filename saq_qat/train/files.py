"""Files that are either whole or absent: the runtime's, with errors of training; and who holds a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from saq_qat.errors import SaqError
from saq_qat_runtime.bundle import result_files
from saq_qat_runtime.bundle.regular_file import open_regular
from saq_qat_runtime.bundle.result_files import sync_folder, write_synced

__all__ = [
    "LOCK_FILE",
    "is_locked",
    "locked",
    "make_folder",
    "sync_folder",
    "write_synced",
    "write_whole",
]

LOCK_FILE = ".lock"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that ``path`` is never half written.

    Raises:
        SaqError: the disk is full, or the folder cannot be written.
    """
    try:
        result_files.write_whole(path, content)
    except OSError as error:
        raise _unwritten(path, error) from error


def make_folder(folder: Path, *, new: bool = False) -> None:
    """Make a folder with its parents; ``new``: it must not be there yet.

    Raises:
        SaqError: the disk is full, a file stands in the way, or the name is too long.
    """
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except OSError as error:
        raise _unwritten(folder, error) from error


def _unwritten(path: Path, error: OSError) -> SaqError:
    return SaqError(f"{path}: cannot be written: {error.strerror}. Free some space or choose another folder.")


def _lock_file(folder: Path) -> IO[bytes]:
    path = folder / LOCK_FILE
    _require_lock_file(path)
    try:
        # A pipe that takes its place in between is not waited for.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o666), "rb")
    except OSError as error:
        raise _unwritten(folder, error) from error
    try:
        _require_lock_file(path)
    except SaqError:
        file.close()
        raise
    return file


def _require_lock_file(path: Path) -> None:
    if (path.exists() or path.is_symlink()) and not path.is_file():
        raise SaqError(
            f"{path}: must be a regular file, by which only one process at a time works in this folder, and "
            "something else stands in its place. Remove it; nothing is kept in it."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the lock ends with the process, however it ends.

    Raises:
        SaqError: another process holds it, the folder cannot be written, or its lock is no regular file.
    """
    import fcntl

    with _lock_file(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SaqError(
                f"{folder}: another process is at work in this folder. Wait until it ends, or name another."
            ) from error
        _HELD.add(file)
        try:
            yield
        finally:
            _HELD.discard(file)
            fcntl.flock(file, fcntl.LOCK_UN)  # whatever a child that was just forked still holds


def is_locked(folder: Path) -> bool:
    """Whether another process holds ``folder`` just now; none holds what is no regular file."""
    import fcntl

    if not (folder / LOCK_FILE).is_file():
        return False
    file = open_regular(folder / LOCK_FILE)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


_HELD: set[IO[bytes]] = set()


def _let_go() -> None:
    """A forked child holds no folder: loader processes outlive a process that was killed by seconds."""
    while _HELD:
        _HELD.pop().close()


os.register_at_fork(after_in_child=_let_go)
