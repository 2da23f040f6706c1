"""With `--json` stdout holds one document, whether a command succeeds or fails."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from typing import Any, NoReturn, TextIO, cast

from saq_qat_runtime.errors import InputError

__all__ = ["JsonOutput", "Parser", "UsageError", "json_output"]


class UsageError(InputError):
    """The command line is wrong; nothing was started."""


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse leaves the process, behind the same line of usage."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser.error`."""
        self.print_usage(sys.stderr)
        raise UsageError(f"{self.prog}: error: {message}")


class JsonOutput:
    """stdout while a command runs that may have been asked for JSON."""

    def __init__(self, stream: TextIO, asked: bool) -> None:
        self._stream = stream
        self._asked = asked
        self._written = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Pass it on."""
        self._written = self._written or bool(text)
        return self._stream.write(text)

    def fail(self, kind: str, message: str, exit_code: int) -> None:
        """Print `{"error": {"kind": ..., "message": ..., "exit_code": ...}}` if JSON was asked for, and the
        command has not printed its own: a verification past its thresholds, for instance, has.

        kind: class of the error; message: as on stderr.
        """
        if self._asked and not self._written:
            error = {"kind": kind, "message": message, "exit_code": exit_code}
            with suppress(OSError):  # stdout is closed or full; stderr has the message too
                print(json.dumps({"error": error}, indent=2), file=self._stream, flush=True)


@contextmanager
def json_output(arguments: Sequence[str]) -> Iterator[JsonOutput]:
    """In this context stdout is watched if JSON is asked for, so that a failure becomes a document if nothing
    else did."""
    asked = "--json" in arguments
    output = JsonOutput(sys.stdout, asked)
    with redirect_stdout(cast("TextIO", output)) if asked else nullcontext():
        yield output
