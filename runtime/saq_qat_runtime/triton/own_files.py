"""Which files of a model's folder this project wrote: a record beside them lists each with its SHA-256.

A file that is not as it is listed is the user's: another model's, or a configuration that was tuned by hand.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from saq_qat_runtime import __version__
from saq_qat_runtime.bundle.files import sha256
from saq_qat_runtime.bundle.origin import written_by_us
from saq_qat_runtime.bundle.regular_file import read_regular
from saq_qat_runtime.errors import ResultError

__all__ = ["OWN_FILES", "check_replaceable", "own_files"]

OWN_FILES = "saq-qat.json"
_SCHEMA = 1


def own_files(contents: Mapping[str, bytes]) -> bytes:
    """The record of files, by their paths within the model's folder."""
    value = {
        "schema_version": _SCHEMA,
        "created_by": f"saq-qat-runtime {__version__}",
        "files": {name: sha256(content) for name, content in contents.items()},
    }
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def check_replaceable(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Raise ResultError where a file in the place of one of `contents` is neither the same nor listed."""
    record = written_by_us(folder / OWN_FILES)
    listed = (record or {}).get("files")
    digests = listed if isinstance(listed, dict) else {}
    names = [
        name for name in contents if not _is_replaceable(folder / name, contents[name], digests.get(name))
    ]
    if record is None and os.path.lexists(folder / OWN_FILES):
        names.append(OWN_FILES)
    if names:
        raise ResultError(
            f"{folder / names[0]}: the model needs this name, and the file there is not as saq-qat wrote it "
            f"({OWN_FILES} lists what it wrote), so it is yours. Move it elsewhere, or name another folder."
        )


def _is_replaceable(path: Path, content: bytes, digest: object) -> bool:
    if not os.path.lexists(path):
        return True
    try:
        there = read_regular(path)
    except OSError:  # a folder, a pipe, a link to nothing: nothing that was written here
        return False
    return there == content or sha256(there) == digest
