"""`saq-qat serve`: a bundle over HTTP, with the options of `saq-qat-runtime serve`."""

import argparse
from pathlib import Path

import typer

from saq_qat.cli.console import newest_run, resolve_run

__all__ = ["CONTEXT", "serve"]

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Leaves the arguments to the runtime's parser: one list of options, whichever command is used."""


def serve(context: typer.Context) -> None:
    """Serve a run's bundle, the newest if left out, over the Open Inference Protocol; see `serve --help`."""
    from saq_qat_runtime.serve.command import add_arguments, run

    parser = argparse.ArgumentParser(
        "saq-qat serve", description="Serve a bundle over HTTP until SIGTERM; needs the extra `serve`."
    )
    add_arguments(parser, run_optional=True)
    arguments = parser.parse_args(context.args)
    arguments.bundle = _bundle(arguments.bundle)
    raise typer.Exit(run(arguments))


def _bundle(argument: Path | None) -> Path:
    """The bundle of a run, of the newest one if nothing is named; any other folder is taken as it is.

    Raises:
        ArtifactError: If there is no run.
    """
    if argument is None:
        return newest_run() / "export"
    is_run = (argument / "resolved.yaml").is_file() or any(argument.glob("*/resolved.yaml"))
    return resolve_run(argument) / "export" if is_run else argument
