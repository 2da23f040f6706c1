"""`saq-qat report`: everything known of a run in one place, and what is not known yet; runs side by side."""

from pathlib import Path
from typing import Annotated

import typer

from saq_qat.cli.console import resolve_run
from saq_qat.errors import RecipeError

__all__ = ["report"]


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="A run's folder, the newest run if left out; several with --compare."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="List every block, also those that are alike.")
    ] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Write a page for a browser, and a Markdown card for model hubs.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Lay several runs side by side, as a page for a browser.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="The page's file; report.html or compare.html in RUN/report if left out."
        ),
    ] = None,
) -> None:
    """Print verdict, accuracy, proof, latency and sizes of a run; written to its folder report/ too.

    With --html also report.html and model_card.md; with --compare RUN RUN ... a page that compares runs.
    """
    given = runs or []
    if compare:
        if as_json or full or html:
            raise RecipeError(
                "report --compare writes one page. Drop --json, --full and --html, or report a run."
            )
        _compare(given, output)
        return
    if len(given) > 1:
        raise RecipeError(f"report shows one run, got {len(given)}. Lay them side by side with --compare.")
    if output is not None and not html:
        raise RecipeError("--output names the page's file, and no page was asked for. Add --html.")
    _report(given[0] if given else None, as_json=as_json, full=full, html=html, output=output)


def _report(run: Path | None, *, as_json: bool, full: bool, html: bool, output: Path | None) -> None:
    from saq_qat.report.collect import collect
    from saq_qat.report.report_json import report_json
    from saq_qat.report.report_text import report_text
    from saq_qat.report.written import write_page, write_text
    from saq_qat_runtime.bundle.result_files import result_json, write_result

    known = collect(resolve_run(run))
    text = "\n".join(report_text(known, full=full)) + "\n"
    values, folder = report_json(known), known.run / "report"
    write_result(folder / "report.json", values)
    write_text(folder / "report.txt", text)
    shown = text.partition("\n\n")[0] + "\n" if html else text  # the page has the rest
    typer.echo(result_json(values, "report.json") if as_json else shown, nl=False)
    written = [folder / "report.txt", folder / "report.json"]
    if html:
        written += write_page(known, output or folder / "report.html")
    if not as_json:
        typer.echo("\nwrote " + "\n      ".join(map(str, written)))


def _compare(runs: list[Path], output: Path | None) -> None:
    from saq_qat.report.collect import collect
    from saq_qat.report.html.compare_page import comparison_page
    from saq_qat.report.written import write_text

    known = [collect(resolve_run(run)) for run in runs]
    page = comparison_page(known)
    path = output or known[0].run / "report" / "compare.html"
    write_text(path, page)
    typer.echo(f"wrote {path}")
