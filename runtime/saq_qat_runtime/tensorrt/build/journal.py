"""Messages of a TensorRT library: all of them to a file, problems and the list of layers to memory.

The building process imports this module: standard library only.
"""

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Self

__all__ = ["Journal", "create_logger", "tail"]

_LAYERS = "Layers:"
_PROBLEMS = ("INTERNAL_ERROR", "ERROR", "WARNING")
_MOST_PROBLEMS = 200
_FILE_BYTES = 1 << 22


class Journal:
    """Collects what a library says, within a ``with``.

    Attributes:
        warnings, errors: its messages of these severities, the first few hundred.
        layers: the engine's list of layers that a verbose build ends with, empty without one.
    """

    def __init__(self, path: Path) -> None:
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self.layers = ""
        self._file = RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=1, encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(message)s"))
        self._lines = logging.Logger("tensorrt")
        self._lines.addHandler(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def note(self, severity: str, message: str) -> None:
        """Take one message; it is in the file when this returns, whatever happens next."""
        self._lines.info("%s: %s", severity, message)
        if message.startswith(_LAYERS):
            self.layers = message
        elif severity in _PROBLEMS:
            chosen = self.warnings if severity == "WARNING" else self.errors
            if len(chosen) < _MOST_PROBLEMS:
                chosen.append(message.strip())


def create_logger(library: Any, journal: Journal) -> Any:
    """A logger of the library that hands every message, verbose ones too, to the journal.

    A process keeps the first logger it was given, whatever comes later: make one, for one build.
    """

    class Logger(library.ILogger):  # type: ignore[misc]  # a class known at run time only
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            journal.note(severity.name, msg)

    return Logger()


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a journal that may have been turned over, and may not exist."""
    files = [path.with_name(f"{path.name}.1"), path]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.exists()]
    return "".join(texts).splitlines()[-lines:]
