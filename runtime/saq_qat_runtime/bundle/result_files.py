"""Files that are written whole or not at all."""

import os
from pathlib import Path

__all__ = ["sync_folder", "write_synced", "write_whole"]


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk; its mode follows the umask."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, wait for the disk and rename, so that it is never half written.

    Raises:
        OSError: the disk is full, or the folder cannot be written; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write_synced(temporary, content)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
