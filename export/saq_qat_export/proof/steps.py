"""What a long proof tells of itself: which step of how many, and how long its images still take."""

import time
from collections.abc import Callable

__all__ = ["OnImages", "OnStep", "Steps"]

OnStep = Callable[[str], None]
OnImages = Callable[[int, int], None]
"""Told how many of how many images were classified."""


class Steps:
    """Numbers the steps of a job, and tells them as ``3/8 what it does``.

    Args:
        on_step: told of each step, and of its images as they are done.
        total: steps of the job.
    """

    def __init__(self, on_step: OnStep, total: int) -> None:
        self._on_step, self._total = on_step, total
        self._number, self._step, self._started = 0, "", 0.0

    def __call__(self, step: str) -> None:
        """Tell of the next step."""
        self._number += 1
        self._step = f"{self._number}/{self._total} {step}"
        self._started = time.monotonic()
        self._on_step(self._step)

    def images(self, done: int, total: int) -> None:
        """Tell that the step at hand has done so many of its images."""
        left = (time.monotonic() - self._started) / done * (total - done)
        self._on_step(f"{done}/{total} images, {left:.0f} s left, {self._step}")
