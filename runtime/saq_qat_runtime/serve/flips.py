"""Inputs that a shadow answers otherwise, kept as files: whole ones, and none where there is no room."""

import logging
import time
from pathlib import Path

import numpy as np

from saq_qat_runtime.errors import InputError
from saq_qat_runtime.serve.batcher import Floats

__all__ = ["Flips"]

_log = logging.getLogger("saq_qat_runtime.serve")


class Flips:
    """Files `flip-<nanoseconds>.npz` in `folder`, which is made; `limit` of them at most.

    Raises InputError if the folder cannot be made.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._unkept = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            rule = f"Flips cannot be kept in {folder}: {error.strerror or error}"
            raise InputError(f"{rule}. Name another folder: --shadow-keep.") from error

    def keep(self, inputs: Floats, primary_logits: Floats, shadow_logits: Floats) -> bool:
        """Write inputs (N, channels, height, width) and both logits (N, labels); False if that failed.

        The log has the first failure, and the first success after it. Nothing is written beyond the limit.
        """
        path = self._folder / f"flip-{time.time_ns()}.npz"
        part = path.with_suffix(".part")
        try:
            if len(list(self._folder.glob("flip-*.npz"))) >= self._limit:
                return True
            with part.open("wb") as file:
                np.savez(file, inputs=inputs, primary_logits=primary_logits, shadow_logits=shadow_logits)
            part.replace(path)
        except OSError as error:
            self._failed(part, error)
            return False
        if self._unkept:
            _log.warning("flips are kept in %s again; %d were not", self._folder, self._unkept)
            self._unkept = 0
        return True

    def _failed(self, part: Path, error: OSError) -> None:
        self._unkept += 1
        if self._unkept == 1:
            _log.error("flips are not kept in %s for now: %s", self._folder, error.strerror or error)
        try:
            part.unlink(missing_ok=True)
        except OSError as second:
            _log.error("%s stays, cut short: %s", part, second.strerror or second)
