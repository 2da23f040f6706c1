"""Engines whose answers a test can foresee, and observers that remember."""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from saq_qat_runtime.errors import InputError
from saq_qat_runtime.serve.batcher import Floats

__all__ = ["Remember", "SlowEngine", "image", "slowed"]


def image(value: float, count: int = 1) -> Floats:
    """`count` images (1, 1, 1) of one number."""
    return np.full((count, 1, 1, 1), value, np.float32)


def slowed(run: Callable[[Floats], Floats], seconds: float) -> Callable[[Floats], Floats]:
    """`run`, so many seconds later."""

    def run_later(images: Floats) -> Floats:
        time.sleep(seconds)
        return run(images)

    return run_later


class SlowEngine:
    """Doubles its images, once `gate` is open; remembers its batch sizes. Refuses batches that hold -1."""

    def __init__(self, seconds: float = 0.0, *, open_gate: bool = True) -> None:
        self.batches: list[int] = []
        self.seen: list[float] = []
        self.gate = threading.Event()
        if open_gate:
            self.gate.set()
        self._seconds = seconds

    def __call__(self, images: Floats) -> Floats:
        self.gate.wait(20)
        time.sleep(self._seconds)
        values = images.reshape(len(images), 1)
        if (values == -1).any():
            raise InputError("an image is -1")
        self.batches.append(len(images))
        self.seen += values[:, 0].tolist()
        return 2 * values


class Remember:
    """A ModelObserver that keeps what it is told."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.compared: list[tuple[int, int, float]] = []
        self.dropped = self.failed = self.unkept = 0

    def batch_done(self, images: int, queue_seconds: Sequence[float], compute_seconds: float) -> None:
        assert all(seconds >= 0 for seconds in queue_seconds)
        assert compute_seconds >= 0
        self.batches.append(images)

    def shadow_compared(
        self, images: int, flips: int, difference: float, primary_seconds: float, shadow_seconds: float
    ) -> None:
        assert primary_seconds > 0
        assert shadow_seconds > 0
        self.compared.append((images, flips, difference))

    def shadow_dropped(self) -> None:
        self.dropped += 1

    def shadow_failed(self) -> None:
        self.failed += 1

    def shadow_unkept(self) -> None:
        self.unkept += 1
