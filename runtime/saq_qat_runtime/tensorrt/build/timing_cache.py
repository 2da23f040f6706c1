"""Measured kernel times, kept from one build to the next; Enterprise TensorRT only.

The building process imports this module: standard library only.
"""

from pathlib import Path
from typing import Any

__all__ = ["TimingCache"]


class TimingCache:
    """The kernel times in a file, for one build.

    The library refuses times that another GPU, CUDA or TensorRT measured; the build then starts afresh.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._attached: Any = None

    def attach(self, config: Any) -> tuple[str, ...]:
        """Let a build use and fill the cache; what the user should know of it is returned."""
        content = self._path.read_bytes() if self._path.exists() else b""
        if self._set(config, content):
            return ()
        self._set(config, b"")
        return (
            f"The timing cache {self._path} is of another GPU or version: all kernels are measured afresh.",
        )

    def _set(self, config: Any, content: bytes) -> bool:
        # The library does not own the cache: it must live until the engine is built.
        self._attached = config.create_timing_cache(content)
        return bool(config.set_timing_cache(self._attached, ignore_mismatch=False))

    def save(self, config: Any) -> tuple[str, ...]:
        """Write what the build has measured; readers see the old file or the new one, never half of it."""
        temporary = self._path.with_name(f".{self._path.name}.partial")
        try:
            with temporary.open("wb") as file:
                file.write(config.get_timing_cache().serialize())
            temporary.replace(self._path)
        except OSError as error:
            return (f"The timing cache {self._path} could not be written: {error.strerror}.",)
        return ()
