"""Files of a bundle: plain names, inside the folder, with the bytes whose hash the manifest holds."""

import hashlib
import re
from pathlib import Path

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.regular_file import read_regular
from saq_qat_runtime.errors import ModelError

__all__ = [
    "LARGEST_FILE",
    "check_digest",
    "file_sha256",
    "is_plain_name",
    "is_sha256",
    "locate",
    "read",
    "read_verified",
    "require_bundle",
    "sha256",
]

LARGEST_FILE = (1 << 31) - 1
"""Bytes of an ONNX file at most: its format has no more."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FIX = "Copy the whole bundle again, or export it again."
_MANIFEST = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_plain_name(name: str) -> bool:
    """Whether `name` is one file name without folders: letters, digits, '.', '_', '-'."""
    return _PLAIN_NAME.fullmatch(name) is not None


def is_sha256(text: str) -> bool:
    """Whether `text` is 64 lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def sha256(content: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate(folder: Path, name: str) -> Path:
    """Path of the regular file `name` in `folder`.

    Raises ModelError if the name has a folder in it, or the file is missing, not a regular file, or a link
    that leads out of the folder.
    """
    require(
        is_plain_name(name), f"File name {name!r} of {folder}: must be a plain name without folders. {_FIX}"
    )
    path = folder / name
    try:
        require(path.exists(), f"{path} is missing, though the bundle needs it. {_FIX}")
        root, target = folder.resolve(), path.resolve()
        regular = target.is_file()
    except OSError as error:
        raise ModelError(f"{path} cannot be reached: {error}. {_FIX}") from error
    require(
        target.is_relative_to(root), f"{path} links to {target}, outside the bundle. Copy the file into it."
    )
    require(regular, f"{path} is not a regular file. {_FIX}")
    return target


def require_bundle(folder: Path) -> None:
    """Raise ModelError for what is no folder of a bundle, and say where one may be."""
    try:
        _require_manifest(folder)
    except OSError as error:  # a name that is too long, or a folder above that may not be entered
        why = error.strerror or error
        raise ModelError(f"{folder} cannot be reached: {why}. Name the folder that export wrote.") from error


def _require_manifest(folder: Path) -> None:
    if (folder / _MANIFEST).exists() or (folder / _MANIFEST).is_symlink():
        return
    if not folder.exists():
        raise ModelError(f"{folder}: there is no such folder. Name the folder that saq-qat export wrote.")
    if not folder.is_dir():
        raise ModelError(f"{folder} is a file. Name the folder of the bundle it belongs to.")
    inner = folder / "export"
    where = f"Its bundle is {inner}" if (inner / _MANIFEST).exists() else "Name the folder of a bundle"
    raise ModelError(f"{folder} is no bundle: it has no {_MANIFEST}. {where}.")


def read(folder: Path, name: str, most: int = LARGEST_FILE) -> bytes:
    """The bytes of a file, unchecked; raises ModelError if it has more than `most`."""
    path = locate(folder, name)
    try:
        return read_regular(path, most)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}. {_FIX}") from error


def read_verified(folder: Path, name: str, digest: str, size: int) -> bytes:
    """The bytes of a file, checked after they were read, so that what is used is what was checked."""
    path = locate(folder, name)
    try:
        found = path.stat().st_size
        content = read_regular(path, size) if found == size else b""
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}. {_FIX}") from error
    _require_same(folder / name, found, sha256(content), size, digest)
    return content


def check_digest(folder: Path, name: str, digest: str, size: int) -> None:
    """Raise ModelError unless the file has exactly `size` bytes and the SHA-256 `digest`."""
    path = locate(folder, name)
    try:
        found = path.stat().st_size
        actual = file_sha256(path) if found == size else ""
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}. {_FIX}") from error
    _require_same(path, found, actual, size, digest)


def _require_same(path: Path, found: int, actual: str, size: int, digest: str) -> None:
    require(found == size, f"{path} has {found} bytes, the manifest says {size}. {_FIX}")
    rule = (
        f"{path} was changed after export: its sha256 is {actual[:12]}..., the manifest says {digest[:12]}..."
    )
    require(actual == digest, f"{rule} {_FIX}")
