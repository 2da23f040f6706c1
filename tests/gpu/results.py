"""One JSON file a part, whole or absent, which says whether it is complete and on what it ran."""

import dataclasses
import json
import math
import platform
from pathlib import Path
from typing import Any

import torch

from saq_qat_runtime.bundle.result_files import write_whole

__all__ = ["is_complete", "machine", "read_part", "write_part"]


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure was measured on."""
    facts: dict[str, Any] = {
        "device": "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "device": properties.name,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch's
            "memory_gib": round(properties.total_memory / 2**30, 1),
        }
    return facts


def write_part(folder: Path, part: str, content: dict[str, Any], *, complete: bool) -> None:
    """Write ``<part>.json``; numbers that are not finite become null."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain({"part": part, "complete": complete, **content}), indent=1, allow_nan=False)
    write_whole(folder / f"{part}.json", text.encode())


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_part(folder: Path, part: str) -> dict[str, Any] | None:
    """What ``write_part`` wrote; None where it did not."""
    file = folder / f"{part}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def is_complete(folder: Path, part: str) -> bool:
    """Whether an earlier call wrote the part to its end."""
    before = read_part(folder, part)
    return before is not None and bool(before["complete"])
