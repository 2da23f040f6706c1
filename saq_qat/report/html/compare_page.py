"""Several runs as one HTML file: curves laid over each other, differences, and who beats whom."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from saq_qat.errors import RecipeError
from saq_qat.report.collect import Collected
from saq_qat.report.compare import (
    Outcome,
    class_differences,
    differences,
    figures,
    outcome,
    recipe_differences,
    short_names,
    unlike_machines,
)
from saq_qat.report.html.curves import learning_curves
from saq_qat.report.html.data import short_report
from saq_qat.report.html.page import BYTES
from saq_qat.report.html.pareto import pareto_charts
from saq_qat.report.html.render import render
from saq_qat.report.run_comparison import compare_runs
from saq_qat.version import __version__

__all__ = ["comparison_page"]

_LEAST, _MOST = 2, 12
_POINTS = 200  # of a curve
_CLASSES = 50


def comparison_page(runs: Sequence[Collected], limit: int = BYTES) -> str:
    """The page of two to twelve runs, as UTF-8 text; every string of them is escaped.

    Numbers of single runs are embedded as far as ``limit`` bytes allow; their own pages have them too.

    Raises:
        RecipeError: too few or too many runs.
    """
    if not _LEAST <= len(runs) <= _MOST:
        raise RecipeError(
            f"report --compare lays {_LEAST} to {_MOST} runs side by side, got {len(runs)}. "
            "Name their folders: saq-qat report --compare RUN RUN"
        )
    named = dict(zip(short_names(runs), runs, strict=True))
    outcomes = [outcome(name, known) for name, known in named.items()]
    values = _context(named, outcomes)
    page = render("compare.html", values | {"data": {"runs": {n: short_report(k) for n, k in named.items()}}})
    if len(page.encode()) < limit:
        return page
    return render("compare.html", values | {"data": {"runs": [asdict(each) for each in outcomes]}})


def _context(named: Mapping[str, Collected], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    runs = tuple(named.values())
    return {
        "title": f"{len(runs)} runs of saq-qat",
        "runs": [(name, str(known.run)) for name, known in named.items()],
        "version": __version__,
        "figures": figures(named),
        "differences": differences(named),
        "classes": class_differences(named, _CLASSES),
        "recipe": recipe_differences(named),
        "set_aside": compare_runs(runs).set_aside,
        "unlike": unlike_machines(named),
        "curves": learning_curves({name: known.log for name, known in named.items()}, _POINTS),
        "pareto": pareto_charts(outcomes),
    }
