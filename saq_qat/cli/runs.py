"""`saq-qat runs`: which runs there are; one of them, several side by side, and deleting some."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from saq_qat.cli.console import print_json, resolve_run
from saq_qat.errors import RecipeError

__all__ = ["compare", "delete", "runs", "runs_app", "show"]

runs_app = typer.Typer(name="runs", invoke_without_command=True)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_SCHEMA_VERSION = 1


@runs_app.callback()
def runs(
    context: typer.Context,
    root: Annotated[Path, typer.Option("--runs", help="Folder that holds the runs.")] = Path("runs"),
    as_json: _Json = False,
) -> None:
    """List the runs with their state, accuracy and size; or show, compare or delete some."""
    if context.invoked_subcommand is not None:
        return
    from saq_qat.report.runs import find_runs, outline
    from saq_qat.report.runs_text import runs_lines

    outlines = [outline(run) for run in find_runs(root)]
    if as_json:
        _print("runs", [asdict(each) for each in outlines])
    elif outlines:
        typer.echo("\n".join(runs_lines(outlines)))
    else:
        typer.echo(f"no run in {root}/; train one with 'saq-qat train recipe.yaml'")


@runs_app.command()
def show(
    run: Annotated[Path | None, typer.Argument(help="A run's folder; the newest run if left out.")] = None,
    as_json: _Json = False,
) -> None:
    """Show one run: its state and why, its checkpoint, what takes the space, and how to go on."""
    from saq_qat.report.runs import outline, sizes_of
    from saq_qat.report.runs_text import outline_lines

    folder = resolve_run(run)
    found, sizes = outline(folder), sizes_of(folder)
    if as_json:
        _print("run", {**asdict(found), "bytes_of": sizes})
        return
    typer.echo("\n".join(outline_lines(found, sizes)))


@runs_app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of two runs or more.")],
    as_json: _Json = False,
) -> None:
    """Show where the recipes of runs differ, and what came out: accuracy, latency, size."""
    from saq_qat.report.collect import collect
    from saq_qat.report.run_comparison import compare_runs, comparison_lines

    if len(folders) < 2:
        raise RecipeError(f"compare takes two runs or more; got {folders[0]}")
    comparison = compare_runs([collect(resolve_run(folder)) for folder in folders])
    if as_json:
        _print("comparison", asdict(comparison))
        return
    typer.echo("\n".join(comparison_lines(comparison)))


@runs_app.command()
def delete(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete without a question.")] = False,
    as_json: _Json = False,
) -> None:
    """Delete runs with all that is in their folders, checkpoints and bundles too.

    Nothing is deleted if one of the folders is no run, is being trained, or holds files of yours.
    """
    from saq_qat.report.runs import outline
    from saq_qat.report.runs_text import runs_lines
    from saq_qat.train.discard import check_deletable, delete_run

    chosen = list(dict.fromkeys(folders))
    for folder in chosen:
        check_deletable(folder)
    outlines = [outline(folder) for folder in chosen]
    if not yes:
        typer.echo("\n".join(runs_lines(outlines)), err=True)
        _ask()
    for folder in chosen:
        delete_run(folder)
    if as_json:
        _print("deleted", [asdict(each) for each in outlines])
        return
    typer.echo("\n".join(f"deleted {folder}" for folder in chosen))


def _ask() -> None:
    """Go on if a person says yes.

    Raises:
        RecipeError: there is nobody to ask. Abort: the answer is no.
    """
    if not sys.stdin.isatty():
        raise RecipeError("delete asks before it deletes, and stdin is no terminal; give --yes")
    typer.confirm("Delete all of that?", abort=True, err=True)


def _print(name: str, value: Any) -> None:
    print_json({"schema_version": _SCHEMA_VERSION, name: value}, "runs")
