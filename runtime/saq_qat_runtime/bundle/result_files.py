"""Files that hold measurements: strict JSON, written whole or not at all.

A result says by two digests what it was measured on, in every file by the same names: `checkpoint_sha256`, of
the checkpoint's model.safetensors, and `bundle_sha256`, of the bundle's manifest.json.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from saq_qat_runtime.bundle.decode import decode, parse_json, shown
from saq_qat_runtime.errors import ModelError, ResultError, VersionError

__all__ = [
    "decode_result",
    "read_result",
    "result_json",
    "short_digest",
    "sync_folder",
    "write_result",
    "write_synced",
    "write_whole",
]

Record = TypeVar("Record")


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


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk; its mode follows the umask."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def result_json(value: Mapping[str, Any], where: str) -> str:
    """JSON text of plain values.

    Raises:
        ResultError: a number is not finite; names `where` and the number.
    """
    found = next(_not_finite(value, ""), None)
    if found is not None:
        raise ResultError(
            f"{where}: {found[0].removeprefix('.')} is {found[1]}, and results hold finite numbers alone, so "
            "it was not written. Find out why the network or the measurement gives such a number."
        )
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_result(path: Path, value: Mapping[str, Any]) -> None:
    """Write a result; the folder is made.

    Raises:
        ResultError: a number is not finite, the disk is full, or the folder cannot be written; an older
            file is untouched.
    """
    text = result_json(value, str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise ResultError(
            f"{path}: cannot be written: {error.strerror or error}. Free some space or choose another folder."
        ) from error


def read_result(path: Path, version: int, fix: str) -> dict[str, Any]:
    """The JSON object in `path`, whose schema_version must be `version`.

    fix: the command that makes the file again, told in every error.

    Raises:
        VersionError: it was written by an older or a newer package. ModelError: it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}. {fix}") from error
    value = parse_json(text, str(path), fix)
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object. {fix}")
    found = value.get("schema_version")
    if found != version or type(found) is not int:
        written = "no schema_version" if found is None else f"schema_version {shown(found)}"
        raise VersionError(f"{path} has {written}; this package reads {version}. {fix}")
    return value


def decode_result(kind: type[Record], value: object, path: Path, fix: str) -> Record:
    """The dataclass `kind` from what `read_result` gave; raises ModelError that ends with `fix`."""
    try:
        return decode(kind, value, path.name)
    except ModelError as error:
        raise ModelError(f"{path} is damaged: {error} {fix}") from error


def short_digest(digest: str) -> str:
    """The first digits of a digest, as messages show it."""
    return f"{digest[:12]}..."


def _not_finite(value: object, path: str) -> Iterator[tuple[str, float]]:
    """Every number that JSON cannot hold, with its place."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{index}]")
