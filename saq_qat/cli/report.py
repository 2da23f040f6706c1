"""`saq-qat report`: everything known of a run in one place, and what is not known yet."""

from pathlib import Path
from typing import Annotated

import typer

from saq_qat.cli.console import resolve_run

__all__ = ["report"]


def report(
    run: Annotated[Path | None, typer.Argument(help="A run's folder; the newest run if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="List every block, also those that are alike.")
    ] = False,
) -> None:
    """Print verdict, accuracy, proof, latency and sizes of a run; written to its folder report/ too."""
    from saq_qat.report.collect import collect
    from saq_qat.report.report_json import report_json
    from saq_qat.report.report_text import report_text
    from saq_qat.train.files import write_whole
    from saq_qat_runtime.bundle.result_files import result_json, write_result

    known = collect(resolve_run(run))
    text = "\n".join(report_text(known, full=full)) + "\n"
    values, folder = report_json(known), known.run / "report"
    write_result(folder / "report.json", values)
    write_whole(folder / "report.txt", text.encode())
    typer.echo(result_json(values, "report.json") if as_json else text, nl=False)
    if not as_json:
        typer.echo(f"\nwrote {folder / 'report.txt'} and report.json")
