"""`saq-qat study`: arms, seeds and comparisons, trained and measured; and the study's page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from saq_qat.cli.console import table
from saq_qat.cli.study_board import board
from saq_qat.errors import RecipeError

if TYPE_CHECKING:
    from saq_qat.analysis.study.result import StudyResult

__all__ = ["measure", "study"]


def study(
    study: Annotated[Path, typer.Argument(help="The study's file; with --report, a study's folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Values to set in all arms' recipes, as data.root=PATH."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Print a study that is complete, and write its page.")
    ] = False,
    studies: Annotated[Path, typer.Option("--studies", help="Folder that holds all studies.")] = Path(
        "studies"
    ),
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Runs at a time; the study's if left out.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of each; the study's if left out.")
    ] = None,
) -> None:
    """Train and measure every arm of a study with every seed, and compare them seed by seed.

    Whatever stops it, the same command goes on: runs that are done are kept, an interrupted one is resumed.
    """
    from saq_qat.analysis.study.run import prepare_study, report_study, run_study
    from saq_qat.cli.supervised import COMMAND

    if report:
        if overrides:
            raise RecipeError(f"--report changes nothing of a study; leave out {' '.join(overrides)}")
        folder = study if study.is_dir() else studies / _name_of(study)
        _print(report_study(folder))
        typer.echo(f"\nwrote {folder / 'study.html'}")
        return
    prepared = prepare_study(study, overrides or (), studies, processes=processes, threads=threads)
    count = len(prepared.jobs)
    if prepared.changes_another:
        typer.echo(
            f"{prepared.folder}: its study.yaml is not this file; runs of arms that are the same are taken, "
            "and study.json is written anew",
            err=True,
        )

    def say_what_is_left(left: int) -> None:
        typer.echo(f"study {prepared.folder}: {count} runs, {count - left} done, {left} to do", err=True)

    with board(prepared.jobs) as on_states:
        result = run_study(prepared, COMMAND, on_states, say_what_is_left)
    _print(result)
    typer.echo(f"\nwrote {prepared.folder}/study.json, table.txt, runs.csv and pictures/")
    typer.echo(f"next: saq-qat study --report {prepared.folder}")


def measure(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    settings: Annotated[str, typer.Argument(help="What to measure, as JSON of a study's section measure.")],
    threads: Annotated[int, typer.Option("--threads", min=1)] = 1,
) -> None:
    """Measure a run; `study` starts it for each of its own, in a process of its own."""
    from saq_qat.analysis.study.measure import measure_run, write_measured
    from saq_qat.analysis.study.schema import Measure

    write_measured(measure_run(run, Measure.model_validate_json(settings), threads), run)


def _name_of(path: Path) -> str:
    """The study whose file, folder or name this is."""
    from saq_qat.analysis.study.schema import load_study

    return load_study(path).name if path.is_file() else path.name


def _print(result: "StudyResult") -> None:
    from saq_qat.analysis.study.text import notes, tables

    for cells in tables(result):
        typer.echo("")
        table(cells.columns, [[escape(cell) for cell in row] for row in cells.rows], cells.title)
    typer.echo("")
    for note in notes(result):
        typer.echo(note)
