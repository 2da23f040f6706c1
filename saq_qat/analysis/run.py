"""The door: what was asked of some runs is measured, drawn and written into their folders."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from saq_qat.analysis.curves import training_curves
from saq_qat.analysis.figures import (
    landscape_figure,
    plane_figure,
    radius_figure,
    require_matplotlib,
    training_figure,
    write_figure,
)
from saq_qat.analysis.labels import run_labels
from saq_qat.analysis.landscape import Line, Plane, loss_line, loss_plane, steps_within
from saq_qat.analysis.measure import Settings, Subject, opened_run, with_eigenvalues, with_trace
from saq_qat.analysis.radius import radius_points
from saq_qat.analysis.record import Analysis, write_analysis
from saq_qat.errors import ArtifactError, RecipeError
from saq_qat.train.choose import CheckpointName, choose_checkpoint
from saq_qat.train.log import read_log

__all__ = [
    "QUANTITIES",
    "Quantity",
    "Reach",
    "Surfaces",
    "Watch",
    "analyse",
    "asked_for",
    "draw_logs",
    "draw_surfaces",
]

Quantity = Literal["eigenvalues", "trace", "landscape", "plane", "training", "rho"]
QUANTITIES: tuple[Quantity, ...] = ("eigenvalues", "trace", "landscape", "plane", "training", "rho")
_PICTURES = frozenset({"landscape", "plane", "training", "rho"})

Watch = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""Shows a job by its label and number of steps; what it yields is told how many are done."""


@dataclass(frozen=True)
class Reach:
    """Of a landscape: so many points along a direction, up to ``reach`` on both sides."""

    points: int
    reach: float

    @property
    def steps(self) -> tuple[float, ...]:
        return steps_within(self.reach, self.points)


@dataclass(frozen=True)
class Surfaces:
    """What was measured of one run; ``line`` and ``plane`` are None where they were not asked for."""

    run: Path
    analysis: Analysis
    conditions: dict[str, Any]
    line: Line | None
    plane: Plane | None


def asked_for(what: str) -> tuple[Quantity, ...]:
    """The quantities of a list with commas, in the order in which they are measured.

    Raises:
        RecipeError: a name that is none of them, or no name. SetupError: a picture, without Matplotlib.
    """
    names = {name.strip() for name in what.split(",") if name.strip()}
    asked = tuple(name for name in QUANTITIES if name in names)
    if not asked or len(asked) < len(names):
        raise RecipeError(
            f"--what takes names from {', '.join(QUANTITIES)}, with commas between them; got {what!r}."
        )
    if _PICTURES & names:
        require_matplotlib()
    return asked


def analyse(
    run: Path, asked: Sequence[Quantity], settings: Settings, reach: Reach, watch: Watch
) -> Surfaces | None:
    """Measure what is asked of the loss surface of one run, and write its analysis.json.

    Eigenvalues and trace that an earlier analysis of the same checkpoint found stay in it.

    Returns:
        None where nothing of the surface is asked for.
    """
    steps = reach.steps
    if not {"eigenvalues", "trace", "landscape", "plane"} & set(asked):
        return None
    with opened_run(run, settings) as subject:
        analysis = _curvature(subject, asked, settings, watch)
        line = plane = None
        if "landscape" in asked:
            with watch(f"{run.name}: landscape", len(steps)) as done:
                line = loss_line(subject.surface, steps, seed=settings.seed, on_point=done)
        if "plane" in asked:
            with watch(f"{run.name}: plane", len(steps) ** 2) as done:
                plane = loss_plane(subject.surface, steps, seed=settings.seed, on_point=done)
        return Surfaces(run, analysis, asdict(subject.conditions), line, plane)


def _curvature(subject: Subject, asked: Sequence[Quantity], settings: Settings, watch: Watch) -> Analysis:
    """Written after each quantity: hours of one must not be lost to the failure of another."""
    analysis, name = subject.analysis, subject.run.name
    if "eigenvalues" in asked:
        with watch(f"{name}: eigenvalues", None) as done:
            analysis = with_eigenvalues(analysis, subject, settings, done)
        write_analysis(analysis, subject.run)
    if "trace" in asked:
        with watch(f"{name}: trace", settings.probes) as done:
            analysis = with_trace(analysis, subject, settings, done)
        write_analysis(analysis, subject.run)
    return analysis


def draw_surfaces(found: Sequence[Surfaces], folder: Path) -> list[Path]:
    """Write landscape and plane of all runs, as far as they were measured; gives the files."""
    labels = run_labels([each.run for each in found])
    lines = {labels[each.run]: each.line for each in found if each.line is not None}
    planes = {labels[each.run]: each.plane for each in found if each.plane is not None}
    written = []
    if lines:
        values = _values(found, labels, lambda each: each.line)
        written += write_figure(lambda: landscape_figure(lines), values, folder, "landscape")
    if planes:
        values = _values(found, labels, lambda each: each.plane)
        written += write_figure(lambda: plane_figure(planes), values, folder, "plane")
    return written


def _values(
    found: Sequence[Surfaces], labels: Mapping[Path, str], part: Callable[[Surfaces], Line | Plane | None]
) -> dict[str, Any]:
    """What a picture shows, each run with the checkpoint it is about."""
    return {
        "runs": [
            {
                "run": str(each.run),
                "label": labels[each.run],
                "checkpoint_sha256": each.analysis.checkpoint_sha256,
                "conditions": each.conditions,
                **asdict(shown),
            }
            for each in found
            if (shown := part(each)) is not None
        ]
    }


def draw_logs(
    runs: Sequence[Path],
    asked: Sequence[Quantity],
    folder: Path,
    checkpoint: CheckpointName | None = None,
) -> list[Path]:
    """Write the pictures that need no network: training and rho; gives the files.

    Args:
        checkpoint: whose accuracy ``rho`` shows; None: as ``radius_points``.

    Raises:
        ArtifactError: a run has no log. RecipeError: as ``radius_points``.
    """
    written = []
    if "training" in asked:
        labels = run_labels(runs)
        curves = {run: training_curves(read_log(_log(run))) for run in runs}
        shown = {labels[run]: epochs for run, epochs in curves.items()}
        values = {
            "runs": [
                {
                    "run": str(run),
                    "label": labels[run],
                    "checkpoint_sha256": choose_checkpoint(run, checkpoint).taken.sha256,
                    "epochs": [asdict(epoch) for epoch in epochs],
                }
                for run, epochs in curves.items()
            ]
        }
        written += write_figure(lambda: training_figure(shown), values, folder, "training")
    if "rho" in asked:
        points = radius_points(runs, checkpoint)
        values = {"runs": [asdict(point) for point in points]}
        written += write_figure(lambda: radius_figure(points), values, folder, "rho")
    return written


def _log(run: Path) -> Path:
    path = run / "log.jsonl"
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; the training has not written its log yet.")
    return path
