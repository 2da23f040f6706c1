"""Whose a file is: what this project wrote may be replaced, what a user put there may not."""

import json
import re
from pathlib import Path

from saq_qat_runtime.bundle.regular_file import read_regular

__all__ = ["written_by_us"]

_CREATED_BY = re.compile(r"saq-qat(-runtime)? ")
_LARGEST_JSON = 64 * 1024 * 1024


def written_by_us(file: Path) -> dict[str, object] | None:
    """A JSON object, of any schema version, that states that this project wrote it; None for all else."""
    try:
        value = json.loads(read_regular(file, _LARGEST_JSON))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or type(value.get("schema_version")) is not int:
        return None
    return value if _CREATED_BY.match(str(value.get("created_by"))) else None
