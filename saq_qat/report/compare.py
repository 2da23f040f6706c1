"""Several runs side by side: figures as rows, runs as columns, and what their recipes say differently."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saq_qat.report.collect import Collected
from saq_qat.report.headline import deployed_row, first_timing
from saq_qat.report.run_comparison import ComparedRow, compare_runs, shown_result, shown_value
from saq_qat.report.tables import Table
from saq_qat.report.verdict import judge_run
from saq_qat_runtime.report.text import NOT_MEASURED, counted, percent, times

__all__ = [
    "Outcome",
    "class_differences",
    "differences",
    "figures",
    "outcome",
    "recipe_differences",
    "short_names",
    "unlike_machines",
]


@dataclass(frozen=True)
class Outcome:
    """What a run is judged by beside others; None where it was not measured.

    Attributes:
        top1: percent, of what ships. file_bytes: of the first target's file.
        median_ms: of the bundle at the first batch size that was measured, which is ``batch``.
    """

    name: str
    top1: float | None
    median_ms: float | None
    file_bytes: int | None
    batch: int | None


def outcome(name: str, known: Collected) -> Outcome:
    """Of one run."""
    timing = first_timing(known.bench)
    sizes = () if known.manifest is None else tuple(known.manifest.sizes.file_bytes.values())
    return Outcome(
        name,
        deployed_row(known).top1,
        None if timing is None else timing.latency.median_ms,
        sizes[0] if sizes else None,
        None if timing is None else timing.batch,
    )


def short_names(runs: Sequence[Collected]) -> tuple[str, ...]:
    """A name for each run: its recipe's, with the folder's where two have the same."""
    recipes = [known.recipe.name for known in runs]
    names = [
        name if recipes.count(name) == 1 else f"{name} {known.run.resolve().name}"
        for name, known in zip(recipes, runs, strict=True)
    ]
    return tuple(name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1))


def figures(runs: Mapping[str, Collected]) -> Table:
    """What was measured: a row for each figure that a run has, a column for each run."""
    verdicts = ("verdict", *(judge_run(known).status for known in runs.values()))
    results = compare_runs(tuple(runs.values())).results
    rows = tuple(_result(each) for each in results if any(value is not None for value in each.values))
    return Table(("", *runs), (verdicts, *rows), (0,))


def recipe_differences(runs: Mapping[str, Collected]) -> Table | None:
    """Keys of the resolved recipes that are not the same for all; None if there are none."""
    rows = tuple(_row(each) for each in compare_runs(tuple(runs.values())).recipe if each.name != "name")
    return Table(("", *runs), rows, tuple(range(len(runs) + 1))) if rows else None


def _result(row: ComparedRow) -> tuple[str, ...]:
    return (row.name.strip(), *(shown_result(row.name, value) for value in row.values))


def _row(row: ComparedRow) -> tuple[str, ...]:
    return (row.name.strip(), *map(shown_value, row.values))


def differences(runs: Mapping[str, Collected]) -> Table:
    """How far each run is from the first: points of top-1, times the latency, times the size."""
    first, *others = (outcome(name, known) for name, known in runs.items())
    rows = tuple(
        (
            other.name,
            _points(first.top1, other.top1),
            _latency(first, other),
            _times(first.file_bytes, other.file_bytes),
        )
        for other in others
    )
    return Table((f"beside {first.name}", "top-1, points", "latency", "file"), rows, (0,))


def _latency(first: Outcome, other: Outcome) -> str:
    if None not in (first.batch, other.batch) and first.batch != other.batch:
        return "another batch size"
    return _times(first.median_ms, other.median_ms)


def _points(first: float | None, other: float | None) -> str:
    return NOT_MEASURED if first is None or other is None else f"{other - first:+.2f}"


def _times(first: float | None, other: float | None) -> str:
    return NOT_MEASURED if not first or other is None else times(other / first)


def class_differences(runs: Mapping[str, Collected], most: int) -> Table | None:
    """Top-1 of each class by eval, deployed where there is a deploy view; the class that lost most first.

    None unless the first run and another were evaluated on the same classes.
    """
    evaluated = {
        name: known.evaluation.classes for name, known in runs.items() if known.evaluation is not None
    }
    first = evaluated.get(next(iter(runs)))
    if first is None:
        return None
    labels = [row.name for row in first]
    alike = {name: rows for name, rows in evaluated.items() if [row.name for row in rows] == labels}
    scores = {
        name: [row.network if row.deployed is None else row.deployed for row in rows]
        for name, rows in alike.items()
    }
    if len(scores) < 2:
        return None
    own, *others = scores.values()
    changes = [min(_change(own[i], other[i]) for other in others) for i in range(len(labels))]
    order = sorted(range(len(labels)), key=lambda i: changes[i])[:most]
    rows = tuple((labels[i], *(percent(column[i]) for column in scores.values())) for i in order)
    note = f"{most} of {len(labels)} classes." if len(labels) > most else ""
    return Table(("class", *scores), rows, (0,), note=note)


def _change(first: float | None, other: float | None) -> float:
    return 0.0 if first is None or other is None else other - first


def unlike_machines(runs: Mapping[str, Collected]) -> str:
    """Why latencies cannot be compared, in a sentence; empty if they can."""
    benches = [known.bench for known in runs.values() if known.bench is not None]
    unlike = {(bench.environment.cpu, bench.environment.usable_cores, bench.threads) for bench in benches}
    if len(unlike) <= 1:
        return ""
    shown = "; ".join(
        f"{cpu}, {cores:g} core{'' if cores == 1 else 's'}, {counted(threads, 'thread')}"
        for cpu, cores, threads in sorted(unlike)
    )
    return f"Latencies were measured on unlike machines, so they compare machines, not runs: {shown}"
