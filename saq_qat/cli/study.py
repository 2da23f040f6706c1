"""`saq-qat study`: arms, seeds and comparisons, trained and measured; and the study's page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from saq_qat.cli.console import print_file, table
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
    as_json: Annotated[bool, typer.Option("--json", help="Print study.json instead of text.")] = False,
) -> None:
    """Train and measure every arm of a study with every seed, and compare them seed by seed.

    Whatever stops it, the same command goes on: runs that are done are kept, an interrupted one is resumed.
    """
    from saq_qat.analysis.study.run import report_study

    if report:
        if overrides:
            raise RecipeError(f"--report changes nothing of a study; leave out {' '.join(overrides)}")
        folder = study if study.is_dir() else studies / _name_of(study)
        _show(report_study(folder), folder, as_json, f"wrote {folder / 'study.html'}")
        return
    folder, result = _run(study, overrides or (), studies, processes, threads)
    wrote = f"wrote {folder}/study.json, table.txt, runs.csv and pictures/"
    _show(result, folder, as_json, f"{wrote}\nnext: saq-qat study --report {folder}")


def _run(
    study: Path, overrides: Sequence[str], studies: Path, processes: int | None, threads: int | None
) -> "tuple[Path, StudyResult]":
    """Do what is left of a study; its folder and what came out."""
    from saq_qat.analysis.study.run import prepare_study, run_study
    from saq_qat.cli.supervised import COMMAND

    prepared = prepare_study(study, overrides, studies, processes=processes, threads=threads)
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
        return prepared.folder, run_study(prepared, COMMAND, on_states, say_what_is_left)


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


def _show(result: "StudyResult", folder: Path, as_json: bool, last: str) -> None:
    """The file itself as JSON, or tables, notes and the last lines."""
    from saq_qat.analysis.study.result import RESULT_FILE
    from saq_qat.analysis.study.text import notes, tables

    if as_json:
        print_file(folder / RESULT_FILE)
        return
    for cells in tables(result):
        typer.echo("")
        table(cells.columns, [[escape(cell) for cell in row] for row in cells.rows], cells.title)
    typer.echo("")
    for note in notes(result):
        typer.echo(note)
    typer.echo(f"\n{last}")
