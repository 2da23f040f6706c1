"""The command `saq-qat-runtime`: its verbs, and how errors become one message and an exit code."""

import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import FrameType

from saq_qat_runtime import __version__
from saq_qat_runtime.cli.json_output import Parser, json_output
from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.report.text import printable

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "info": "What a bundle is: network, files, layers, proof.",
    "self-test": "Load a bundle and compare its golden logits.",
    "build": "Build the TensorRT engine of a bundle for this machine's GPU.",
    "bench": "Measure latency of a bundle on the engines of this machine.",
    "verify": "Compare an engine's answers with those of the network that was trained.",
    "serve": "Answer requests over HTTP.",
}
"""Verbs and what they do; each is a module beside this one with `add_arguments` and `run`."""


def main() -> None:
    """Run the command line of this process and exit with the code that `saq_qat_runtime.errors` documents:
    2 for usage, 130 and 143 where it was interrupted."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _terminate)
    with json_output(arguments) as output:
        try:
            sys.exit(_run([argument for argument in arguments if argument != "--debug"]))
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            message, code = _message(error), _exit_code(error)
            output.fail(type(error).__name__, message, code)
            print(printable(message), file=sys.stderr)
            sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="saq-qat-runtime",
        description="Run networks that saq-qat exported, on the machine where they run.",
        epilog="--debug, anywhere, shows the traceback of an error.",
    )
    parser.add_argument("--version", action="version", version=f"saq-qat-runtime {__version__}")
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), "")
    for name, description in COMMANDS.items():
        verb = verbs.add_parser(name, help=description, description=description)
        if name == chosen:  # the others may need packages that are not there
            module = import_module(f"saq_qat_runtime.cli.{name.replace('-', '_')}")
            module.add_arguments(verb)
            verb.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    code: int = parsed.run(parsed)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SessionError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the operating system'}: {error.strerror}"
    return (
        f"internal error ({type(error).__name__}: {error}); run again with --debug and report the traceback"
    )


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SessionError):
        return error.exit_code
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
