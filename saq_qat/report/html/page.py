"""A run as one HTML file: no script, nothing from outside, light and dark, from a telephone's width up."""

from dataclasses import dataclass
from typing import Any

from saq_qat.errors import SaqError
from saq_qat.report.collect import Collected
from saq_qat.report.details import Details
from saq_qat.report.engines import engine_lines
from saq_qat.report.headline import facts
from saq_qat.report.html.classes import class_table, confusion_table, matrix
from saq_qat.report.html.curves import learning_curves
from saq_qat.report.html.data import page_data
from saq_qat.report.html.latency import Distribution, distribution
from saq_qat.report.html.layers import activation_table, layer_table
from saq_qat.report.html.render import render
from saq_qat.report.tables import (
    Table,
    accuracy_table,
    candidate_table,
    gpu_table,
    latency_table,
    proof_table,
    size_table,
)
from saq_qat.report.verdict import fix_of, judge_run, missing_steps, warnings_of
from saq_qat.version import __version__
from saq_qat_runtime.report.bench_text import describe_machine, speed_verdicts
from saq_qat_runtime.report.gpu_text import gpu_machine_lines
from saq_qat_runtime.report.text import RATE_NOTE

__all__ = ["BYTES", "Bounds", "report_page"]

BYTES = 1_000_000
"""A page is smaller than that."""


@dataclass(frozen=True)
class Bounds:
    """How much of what grows with the network a page shows: pictures, histograms a table, classes, points.

    ``by_layer``: whether the numbers of every layer are embedded too.
    """

    thumbnails: int
    histograms: int
    classes: int
    points: int
    by_layer: bool = True


_BOUNDS = (Bounds(24, 150, 200, 400), Bounds(12, 60, 100, 200), Bounds(0, 0, 20, 100, by_layer=False))
THUMBNAILS = _BOUNDS[0].thumbnails


def report_page(known: Collected, details: Details, limit: int = BYTES) -> str:
    """The page of a run, as UTF-8 text; every string of the run is escaped.

    Where it would be larger than ``limit`` bytes, it shows fewer pictures, and says how many.

    Raises:
        SaqError: it is larger even so.
    """
    for bounds in _BOUNDS:
        page = render("report.html", _context(known, details, bounds))
        if len(page.encode()) < limit:
            return page
    raise SaqError(
        f"{known.run}: its page would be {len(page.encode()):,} bytes, {limit:,} are allowed, although it "
        "shows no histogram and no image. Read report.txt and report.json in its place: saq-qat report --full"
    )


def _context(known: Collected, details: Details, bounds: Bounds) -> dict[str, Any]:
    latencies = _latencies(details)
    return {
        "name": known.recipe.name,
        "run": str(known.run),
        "version": __version__,
        "verdict": judge_run(known),
        "facts": facts(known),
        "warnings": warnings_of(known),
        "fix": fix_of(known),
        "missing_steps": missing_steps(known),
        "missing": details.missing,
        "accuracy": accuracy_table(known),
        "proof": proof_table(known),
        "curves": learning_curves({known.recipe.name: known.log}, bounds.points),
        "sizes": size_table(known),
        **_speed(known, latencies),
        **_classes(known, details, bounds),
        **_grids(known, details, bounds),
        "flips": details.flips,
        "thumbnails": bounds.thumbnails,
        "checkpoint": known.checkpoint,
        "bundle_sha256": known.bundle_sha256,
        "machines": _machines(known),
        "recipe": details.recipe,
        "data": page_data(known, details, latencies, by_layer=bounds.by_layer),
    }


def _latencies(details: Details) -> list[Distribution]:
    samples = details.samples or {}
    drawn = (distribution(batch, by_name) for batch, by_name in samples.items())
    return [each for each in drawn if each is not None]


def _speed(known: Collected, latencies: list[Distribution]) -> dict[str, Any]:
    bench = known.bench
    pictures = {each.batch: each for each in latencies}
    batches = () if bench is None else bench.batches
    return {
        "speeds": [] if bench is None else speed_verdicts(bench),
        "latencies": [(batch, latency_table(known, batch), pictures.get(batch)) for batch in batches],
        "candidates": candidate_table(known),
        "bench_notes": () if bench is None else (*bench.notes, RATE_NOTE),
        "gpu": _gpu(known),
        "engines": engine_lines(known.engines, bench),
        "not_run": () if bench is None else bench.not_run,
    }


def _gpu(known: Collected) -> list[tuple[str, Table]]:
    """A table of the engines on the GPU for each batch size, and its title."""
    gpu = None if known.bench is None else known.bench.gpu
    if gpu is None:
        return []
    batches = dict.fromkeys(timing.batch for timing in gpu.timings)
    return [(f"Batch {batch} on {gpu.machine.name}", gpu_table(gpu, batch)) for batch in batches]


def _classes(known: Collected, details: Details, bounds: Bounds) -> dict[str, Any]:
    found, names = details.predictions, details.classes
    if found is None or known.evaluation is None:
        return {"matrix": None, "classes": None, "confusions": None}
    form = "float" if known.evaluation.form == "float" else "fake-quant"
    return {
        "matrix": matrix(found, names, form),
        "classes": class_table(found, names, bounds.classes, form),
        "confusions": confusion_table(found, names, form),
    }


def _grids(known: Collected, details: Details, bounds: Bounds) -> dict[str, Any]:
    return {
        "layers": layer_table(known, details.grids, bounds.histograms),
        "activations": activation_table(known, details.grids, bounds.histograms),
        "images": 0 if details.grids is None else details.grids.images,
    }


def _machines(known: Collected) -> Table:
    """Where the run was trained, exported and measured."""
    rows = [] if known.environment is None else [("training", _facts(known.environment))]
    if known.manifest is not None:
        rows.append(("export", f"{known.manifest.created_by}; {_facts(known.manifest.versions)}"))
    if known.bench is not None:
        lines = describe_machine(known.bench.environment, known.bench.threads)
        lines += gpu_machine_lines(known.bench.gpu)
        rows.append(("measurement", f"{known.bench.created}; {'; '.join(lines)}"))
    return Table(("", ""), tuple(rows), (0, 1))


def _facts(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value not in (None, ""))
