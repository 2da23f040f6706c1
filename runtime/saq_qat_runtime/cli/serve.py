"""`saq-qat-runtime serve`: answers over HTTP; what it takes and does stands in the room `serve`."""

import argparse
from importlib import import_module

__all__ = ["add_arguments", "run"]

_COMMAND = "saq_qat_runtime.serve.command"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    import_module(_COMMAND).add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until the process is told to stop."""
    code: int = import_module(_COMMAND).run(arguments)
    return code
