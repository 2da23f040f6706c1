"""Files that are either whole or absent: the runtime's, with errors of training; and who holds a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saq_qat.errors import SaqError
from saq_qat_runtime.bundle import result_files
from saq_qat_runtime.bundle.result_files import sync_folder, write_synced

__all__ = ["LOCK_FILE", "is_locked", "locked", "sync_folder", "write_synced", "write_whole"]

LOCK_FILE = ".lock"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that ``path`` is never half written.

    Raises:
        SaqError: the disk is full, or the folder cannot be written.
    """
    try:
        result_files.write_whole(path, content)
    except OSError as error:
        raise SaqError(
            f"{path}: cannot be written: {error.strerror}. Free some space or choose another folder."
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the lock ends with the process, however it ends.

    Raises:
        SaqError: another process holds it.
    """
    import fcntl

    with (folder / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SaqError(
                f"{folder}: another process is at work in this folder. Wait until it ends, or name another."
            ) from error
        yield


def is_locked(folder: Path) -> bool:
    """Whether another process holds ``folder`` just now."""
    import fcntl

    try:
        file = (folder / LOCK_FILE).open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
