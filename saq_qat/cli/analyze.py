"""`saq-qat analyze`: how sharp the loss is around trained weights, and what training looked like."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saq_qat.cli.console import print_json, progress, resolve_run, table

if TYPE_CHECKING:
    from saq_qat.analysis.record import Analysis

__all__ = ["analyze"]

_WHAT = "eigenvalues, trace; pictures: landscape, plane (Figures 1, B, C), training (3, 4), rho (A)"


def analyze(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of runs to compare; the newest run if left out.")
    ] = None,
    what: Annotated[str, typer.Option(help=f"With commas: {_WHAT}.")] = "eigenvalues,trace,landscape",
    images: Annotated[int, typer.Option(min=1, help="Training images that the loss is the mean of.")] = 1024,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images of one pass; the recipe's batch size if left out.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many eigenvalues.")] = 5,
    tolerance: Annotated[float, typer.Option(help="Of eigenvalues, relative to their magnitude.")] = 1e-3,
    restarts: Annotated[int, typer.Option(min=1, help="Of Lanczos, at most.")] = 50,
    probes: Annotated[int, typer.Option(max=100_000, help="Random vectors of the trace.")] = 32,
    points: Annotated[int, typer.Option(max=10_001, help="Losses along a direction, an odd number.")] = 41,
    reach: Annotated[
        float, typer.Option(max=1e6, help="Of a direction; 1 moves a filter by its own length.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of directions, first vectors and probes.")] = 0,
    float64: Annotated[bool, typer.Option("--float64", help="Compute in float64.")] = False,
    checkpoint: Annotated[
        Literal["last", "best"] | None,
        typer.Option(help="Which checkpoint; the best of a run's last stage if left out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of pictures; analysis/ of the first run if left out.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each run's analysis.json, and what was drawn, as JSON.")
    ] = False,
) -> None:
    """Curvature, landscape and course of trainings; writes analysis/analysis.json and pictures."""
    from saq_qat.analysis.measure import Settings
    from saq_qat.analysis.run import Reach, analyse, asked_for, draw_logs, draw_surfaces

    asked = asked_for(what)
    folders = [resolve_run(run) for run in runs] if runs else [resolve_run(None)]
    settings = Settings(checkpoint, images, batch_size, count, tolerance, restarts, probes, seed, float64)
    every = [analyse(run, asked, settings, Reach(points, reach), _watch) for run in folders]
    found = [each for each in every if each is not None]
    folder = out or folders[0] / "analysis"
    measured = [(each.run, each.analysis) for each in found]
    if measured and {"eigenvalues", "trace"} & set(asked) and not as_json:
        _print_curvature(measured)
    written = draw_surfaces(found, folder) + draw_logs(folders, asked, folder, checkpoint)
    if as_json:
        runs_found = [{"run": str(run), **asdict(analysis)} for run, analysis in measured]
        print_json({"runs": runs_found, "written": [str(path) for path in written]}, "analysis")
        return
    for path in written:
        typer.echo(f"wrote {path}")


@contextmanager
def _watch(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    with progress(label, total) as bar:
        yield lambda done: bar.advance(note="" if total else f"{done} products")


def _print_curvature(found: "Sequence[tuple[Path, Analysis]]") -> None:
    rows = [(str(run), *_curvature(analysis)) for run, analysis in found]
    table(["run", "checkpoint", "lambda max +- residual", "next", "trace +- standard error", "images"], rows)
    for run, analysis in found:
        if analysis.lanczos is not None and not analysis.lanczos.converged:
            typer.echo(
                f"{run}: not all eigenvalues converged to {analysis.lanczos.tolerance:g}; each is within its "
                "residual of one. Raise --restarts or --tolerance, or use --float64."
            )


def _curvature(analysis: "Analysis") -> tuple[str, str, str, str, str]:
    values, residuals = analysis.eigenvalues or (), analysis.residuals or ()
    largest = f"{values[0]:.4g} +- {residuals[0]:.1g}" if values else "-"
    further = ", ".join(f"{value:.4g}" for value in values[1:]) or "-"
    trace = "-" if analysis.trace is None else f"{analysis.trace:.4g} +- {analysis.trace_standard_error:.2g}"
    measured = analysis.lanczos or analysis.hutchinson
    images = "-" if measured is None else str(measured.conditions.images)
    return f"{analysis.checkpoint} (step {analysis.step})", largest, further, trace, images
