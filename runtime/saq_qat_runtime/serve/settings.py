"""What a server is told: where it listens, how it forms batches, and what it bounds."""

import math
from dataclasses import dataclass, fields
from pathlib import Path

from saq_qat_runtime.errors import InputError

__all__ = ["LARGEST_BATCH", "Bounds", "ServeSettings", "ShadowSettings"]

LARGEST_BATCH = 256
"""Every size up to it is run before the first request is answered, which takes its square in images."""

_MAY_BE_ZERO = ("batch_delay", "drain_seconds", "port", "keep")


def _check_numbers(settings: "Bounds | ShadowSettings | ServeSettings") -> None:
    """Raise InputError for a number that bounds nothing."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not math.isfinite(value) or value < 0 or (value == 0 and field.name not in _MAY_BE_ZERO):
            raise InputError(f"{field.name.replace('_', ' ')} must be finite and positive, got {value}.")


@dataclass(frozen=True)
class Bounds:
    """What one client, or all of them, may take.

    body_bytes: of a request, also once unpacked. buffered_bytes: of all bodies that are held at one time.
    pixels: of a picture as sent. requests: whose bodies are there, that wait or are computed; more get 503.
    connections: open at one time. deadline: seconds from the arrival of a request to its answer.
    header_seconds, body_seconds: for a client to send the head and the body of a request. send_seconds: for
    it to take what it was sent.
    """

    body_bytes: int = 16 * 1024 * 1024
    buffered_bytes: int = 512 * 1024 * 1024
    pixels: int = 25_000_000
    requests: int = 128
    connections: int = 512
    deadline: float = 10.0
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    send_seconds: float = 30.0

    def __post_init__(self) -> None:
        _check_numbers(self)


@dataclass(frozen=True)
class ShadowSettings:
    """What runs beside: another bundle, another backend, or both; see `Shadow`.

    share: of the requests, 0 to 1. keep_folder, keep: where inputs that are answered otherwise are kept, and
    how many at most.
    """

    bundle: Path | None = None
    backend: str | None = None
    share: float = 0.1
    keep_folder: Path | None = None
    keep: int = 100

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.share > 1:
            raise InputError(f"The share of shadowed requests must be at most 1, got {self.share}.")
        if self.bundle is None and self.backend is None:
            raise InputError("Shadow mode needs a second bundle (--shadow) or backend (--shadow-backend).")


@dataclass(frozen=True)
class ServeSettings:
    """Everything a server is told.

    backend, threads: as of `Session.load`. max_batch: images in one run of the engine, and in one request.
    batch_delay: seconds for which an image waits for others to join it. drain_seconds: between SIGTERM, after
    which the server is no longer ready, and the end of listening. shutdown_seconds: for requests in flight,
    after that. allow_failed_gate: serve bundles whose proof failed.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    backend: str = "auto"
    threads: int | None = None
    max_batch: int = 8
    batch_delay: float = 0.0
    drain_seconds: float = 1.0
    shutdown_seconds: float = 30.0
    allow_failed_gate: bool = False
    bounds: Bounds = Bounds()
    shadow: ShadowSettings | None = None

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.port > 65535:
            raise InputError(f"port must be at most 65535, got {self.port}.")
        if self.max_batch > LARGEST_BATCH:
            raise InputError(
                f"--max-batch may be {LARGEST_BATCH} at most, got {self.max_batch}: each size up to it is "
                "run before the first request is answered. Lower it."
            )
