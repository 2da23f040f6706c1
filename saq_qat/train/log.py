"""What a run leaves for people and reports to read: log.jsonl and env.json."""

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from saq_qat.errors import ArtifactError, SaqError
from saq_qat.quant.numerics.layers import QuantLayer
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.train.log_copies import LogCopy
from saq_qat.train.log_lines import whole_lines, why_no_line
from saq_qat.version import __version__
from saq_qat_runtime.bundle.regular_file import open_regular, read_regular
from saq_qat_runtime.processor import cpu_model

__all__ = ["RunLog", "clip_levels", "environment", "log_tail", "read_log"]

_TAIL_BYTES = 1 << 18


class RunLog:
    """One JSON object a line, each with ``event`` (stage, step, epoch, end) and the ``step`` it follows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copies: list[LogCopy] = []
        self._end: int | None = None

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a line. Values that are None are left out; numbers that are not finite become null.

        Raises:
            SaqError: the disk is full, or the file cannot be written; as of ``copy_to`` and ``sync``.
        """
        line = {
            "event": event,
            "step": step,
            **{key: _finite(value) for key, value in values.items() if value is not None},
        }
        self._drop_rest()
        with _told(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        with _told(self.path.parent):
            for copy in self._copies:
                copy.write(line)

    def copy_to(self, copies: Sequence[LogCopy]) -> None:
        """Give these every line: those written so far now, those to come as they are written."""
        if copies:
            self._drop_rest()
        for line in read_log(self.path) if copies and self.path.exists() else ():
            with _told(self.path.parent):
                for copy in copies:
                    copy.write(line)
        self._copies += copies

    def close(self) -> None:
        """End the copies; the log itself is never left open."""
        copies, self._copies = self._copies, []
        with _told(self.path.parent):
            for copy in copies:
                copy.close()

    @property
    def size(self) -> int:
        """Bytes written so far, without what is to be dropped."""
        found = self.path.stat().st_size if self.path.exists() else 0
        return found if self._end is None else min(found, self._end)

    def sync(self) -> None:
        """Wait until all lines are on the disk: a checkpoint that is there must find its lines too."""
        if self.path.exists():
            with _told(self.path), self.path.open("ab") as file:
                os.fsync(file.fileno())

    def may_be_cut(self, size: int, step: int) -> bool:
        """Whether a line ends at ``size`` bytes, and none behind it is of an earlier step than ``step``.

        What a power cut left of a line is of no step.
        """
        if not self.path.exists():
            return size == 0
        content = read_regular(self.path)
        if size and content[size - 1 : size] != b"\n":
            return False
        return all(line.get("step", step) >= step for line in whole_lines(content[size:].splitlines()))

    def check(self, size: int) -> None:
        """Refuse damaged lines among the first ``size`` bytes, which a resumed run keeps: a report would.

        Raises:
            ArtifactError: a line is damaged, named by its number; or the log cannot be read.
        """
        if self.path.exists():
            _lines(self.path, _content(self.path)[:size])

    def cut(self, size: int) -> None:
        """Drop what a killed run wrote after its last checkpoint, when the log had ``size`` bytes; with the
        next line, so that a run that is refused before stays as it is.

        Of a log that has lost its end since, what is left of a line is dropped: the next would stand behind
        it.
        """
        found = self.size
        self._end = size if found >= size else read_regular(self.path).rfind(b"\n") + 1 if found else 0

    def _drop_rest(self) -> None:
        end, self._end = self._end, None
        if end is not None and self.size > end:
            with _told(self.path):
                os.truncate(self.path, end)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say of a log that cannot be written what is left and how to go on."""
    try:
        yield
    except OSError as error:
        raise SaqError(
            f"{error.filename or path}: cannot be written: {error.strerror}. Checkpoints are intact; free "
            "some space and go on with --resume."
        ) from error


def _finite(value: Any) -> Any:
    """JSON has no number for them, and a log must be readable by every parser to its end."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_log(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a log; the last may have been cut short by a kill.

    Older logs hold NaN and Infinity, which are read as None.

    Raises:
        ArtifactError: it cannot be read, or holds something else before its end; names the line.
    """
    return _lines(path, _content(path))


def _lines(path: Path, content: bytes) -> list[dict[str, Any]]:
    """As ``read_log``, of bytes of the log at ``path``."""
    texts = content.splitlines()
    lines = list(whole_lines(texts))
    whole = len(texts) - (bool(content) and not content.endswith(b"\n"))
    if len(lines) < whole:
        number = next(i for i, text in enumerate(texts, 1) if not list(whole_lines([text])))
        raise ArtifactError(
            f"{path}:{number}: no line of a log of saq-qat, which are JSON objects in UTF-8: "
            f"{why_no_line(texts[number - 1])}. Put the log back as training wrote it, or delete the line."
        )
    return lines


def _content(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}.") from error


def log_tail(path: Path) -> list[dict[str, Any]]:
    """The last whole lines of a log, those within its last 256 KiB; what is no line is left out."""
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        texts = file.read().splitlines()
    return list(whole_lines(texts if size <= _TAIL_BYTES else texts[1:]))


def environment(device: torch.device, world_size: int) -> dict[str, Any]:
    """What the numbers of a run depend on beside its recipe."""
    return {
        "saq_qat": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "world_size": world_size,
    }


@torch.no_grad()
def clip_levels(network: nn.Module) -> dict[str, dict[str, float]]:
    """|alpha| of each quantizer and the share of each layer's weights that are clipped; empty for float."""
    levels, clipped = {}, {}
    for name, module in network.named_modules():
        if isinstance(module, Quantizer):
            levels[name] = round(module.alpha.abs().item(), 6)
        elif isinstance(module, QuantLayer):
            clipped[name] = round(1.0 - module.clip_mask().float().mean().item(), 6)
    return {"clip_levels": levels, "clipped_weights": clipped} if levels else {}
