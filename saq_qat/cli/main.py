"""The command `saq-qat`: its verbs, and how errors become one message and an exit code."""

import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, TextIO, cast

import typer

from saq_qat.cli.analyze import analyze
from saq_qat.cli.bench import bench
from saq_qat.cli.build import build
from saq_qat.cli.check import check
from saq_qat.cli.console import quietly
from saq_qat.cli.doctor import doctor
from saq_qat.cli.eval import evaluate_run
from saq_qat.cli.export import export
from saq_qat.cli.init import init
from saq_qat.cli.report import report
from saq_qat.cli.runs import runs_app
from saq_qat.cli.schema import schema
from saq_qat.cli.serve import CONTEXT, serve
from saq_qat.cli.show import show
from saq_qat.cli.study import measure, study
from saq_qat.cli.train import train
from saq_qat.cli.verify import verify
from saq_qat.errors import SaqError
from saq_qat.version import __version__
from saq_qat_runtime.cli.json_output import json_output
from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.report.text import printable

__all__ = ["app", "main"]

_ALLOCATION = ("DefaultCPUAllocator: ", "CUDA out of memory")
"""What torch's errors say where others raise MemoryError."""

_SOURCE = Path(__file__).parents[1]

app = typer.Typer(
    name="saq-qat",
    help="Sharpness-aware quantization: the integers you train are the integers you ship.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(init)
app.command()(check)
app.command()(show)
app.command()(schema)
app.command()(train)
app.command("eval")(evaluate_run)
app.command()(export)
app.command()(build)
app.command()(verify)
app.command()(bench)
app.command()(analyze)
app.command()(report)
app.command(context_settings=CONTEXT, add_help_option=False)(serve)
app.command()(study)
app.command(hidden=True)(measure)
app.add_typer(runs_app)
app.command()(doctor)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"saq-qat {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show results and errors alone, not how far a job is.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Declared for `--help`; `main` takes `--debug` and `--quiet` out, so that they may stand anywhere."""


def main() -> None:
    """Run the command line of this process and exit with the code that `saq_qat.errors` documents."""
    arguments = sys.argv[1:]
    debug, quiet = "--debug" in arguments, "--quiet" in arguments
    arguments = [argument for argument in arguments if argument not in ("--debug", "--quiet")]
    interrupt = _Interrupt()
    interrupt.listen()
    with json_output(arguments) as output, quietly(quiet), _warnings_as_sentences():
        try:
            app(arguments, prog_name="saq-qat")
        except SystemExit as left:
            if left.code == 128 + signal.SIGINT:  # typer makes this of an interrupt, without a word
                typer.echo("interrupted", err=True)
            if left.code:
                output.fail(*_told_by(left.__context__), cast("int", left.code))
            raise
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            message = "interrupted" if interrupt.number else _message(error)
            code = 128 + interrupt.number if interrupt.number else _exit_code(error)
            output.fail(type(error).__name__, message, code)
            if interrupt.number != signal.SIGTERM:
                typer.echo(printable(message), err=True)
            sys.exit(code)


@contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """What this program warns of is meant for whoever runs it, who asks for no place in its code."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            own = category is UserWarning and Path(filename).is_relative_to(_SOURCE)
            if own and file is None:
                typer.echo(printable(f"warning: {message}"), err=True)
            else:
                shown(message, category, filename, lineno, file, line)

        warnings.showwarning = show  # the hook that the module offers for this
        yield


class _Interrupt:
    """The signal that asked this process to leave, 0 if none did.

    What it raises may come back as another error: modules that are being imported, for one, turn it into one
    of their own.
    """

    number = 0

    def listen(self) -> None:
        """A SIGHUP that is ignored already (nohup) stays ignored."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._leave)

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SaqError | SessionError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the operating system'}: {error.strerror}"
    if isinstance(error, MemoryError) or any(words in str(error) for words in _ALLOCATION):
        return (
            f"memory ran out: {str(error) or type(error).__name__}. Lower train.batch_size, data.image_size "
            "or the number of images, or use a machine with more memory"
        )
    return (
        f"internal error ({type(error).__name__}: {error}); run again with --debug and report the traceback"
    )


def _told_by(error: BaseException | None) -> tuple[str, str]:
    """Kind and message of what typer has told on stderr before it left: a wrong command line."""
    tell = getattr(error, "format_message", None)  # typer's own copy of click's errors has no public name
    if tell is not None:
        return "UsageError", tell()
    return "Exit", "the command ended without a result; stderr says why"


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SaqError | SessionError):
        return error.exit_code
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
