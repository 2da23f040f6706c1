"""A study's result as tables of plain cells, for a terminal, a file and a page alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saq_qat.analysis.study.machines import machine_notes
from saq_qat.analysis.study.quantities import QUANTITIES, Measured, Quantity, value_of
from saq_qat.analysis.study.result import ComparisonResult, StudyResult
from saq_qat.analysis.study.statistics import Interval, PairedDifference, Spread

__all__ = ["Cells", "headline", "notes", "shown_quantities", "tables", "text_of"]

_OF_THE_RECIPE = ("passes", "image_passes")
"""Quantities that an arm's recipe decides, whatever the seed."""


_DEFINITIONS = (
    "equal epochs: both arms train as many epochs on images of one cost. equal compute: as many forward and "
    "backward passes over the images, within 2 %, but for stages that both share. neither: nothing is "
    "equal. Loss and calibration error are of the fake-quant network on validation images; train loss, "
    "sharpness and lambda max of training images; docs/studies.md tells what each is."
)


@dataclass(frozen=True)
class Cells:
    """A table: its title, its columns, and rows of as many cells."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def headline(result: StudyResult) -> Quantity:
    """What runs are judged by: accuracy of the deployed integers, or of the network if none is deployed."""
    deployed = any(QUANTITIES[0].key in arm.quantities for arm in result.arms)
    return QUANTITIES[0] if deployed else QUANTITIES[1]


def shown_quantities(result: StudyResult) -> list[Quantity]:
    """Those that some arm has, in the order of the tables."""
    known = {key for arm in result.arms for key in arm.quantities}
    return [quantity for quantity in QUANTITIES if quantity.key in known]


def tables(result: StudyResult) -> tuple[Cells, ...]:
    """Arms; comparisons by the headline, and by all else; runs."""
    found = (_arms(result), _comparisons(result), _differences(result), _runs(result))
    return tuple(table for table in found if table.rows)


def notes(result: StudyResult) -> Iterator[str]:
    """What a reader of the tables has to know."""
    yield f"Numbers are of the checkpoint {result.checkpoint!r} of each run; intervals hold 95 %."
    yield _DEFINITIONS
    yield result.statistics
    for arm in result.arms:
        if arm.diverged:
            yield f"{arm.name}: diverged with {_seeds(arm.diverged)}, which have no numbers."
        if arm.differs_in:
            told = ", ".join(arm.differs_in)
            yield f"{arm.name}: declared to differ in {told}, whatever its comparisons say."
    yield from machine_notes((f"{run.arm}-seed{run.seed}", run.machine) for run in result.runs)
    yield from _unconverged(result)
    key = headline(result).key
    for comparison in result.comparisons:
        name, pair = _title(comparison), comparison.quantities.get(key)
        if pair is None:
            yield f"{name}: no seed has numbers in both arms."
            continue
        if pair.missing:
            yield f"{name}: {_seeds(pair.missing)} only in one arm, left out."
        if len(pair.seeds) == 1:
            yield f"{name}: one pair of seeds, so no interval and no test."
        elif pair.t is None:
            yield f"{name}: all differences are equal, so there is no t-test."


def _unconverged(result: StudyResult) -> Iterator[str]:
    curvatures = {f"{run.arm}-seed{run.seed}": run.measured.curvature for run in result.runs if run.measured}
    names = [name for name, found in curvatures.items() if found is not None and not found.converged]
    if names:
        yield (
            f"lambda max did not converge in {', '.join(names)}: a - stands there, and means and differences "
            "leave it out. saq-qat analyze RUN --what eigenvalues --restarts 200 may find it."
        )


def text_of(result: StudyResult) -> str:
    """All of it as aligned text."""
    blocks = [f"study {result.name}, {result.created}, {result.created_by}"]
    blocks += ["\n".join([table.title, *_aligned(table)]) for table in tables(result)]
    return "\n\n".join([*blocks, "\n".join(notes(result))]) + "\n"


def _aligned(table: Cells) -> Iterator[str]:
    lines = [table.columns, *table.rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _arms(result: StudyResult) -> Cells:
    shown = shown_quantities(result)
    columns = ("arm", "seeds", *(_heading(quantity) for quantity in shown))
    rows = [
        (
            arm.name,
            str(len(arm.seeds) - len(arm.diverged)),
            *(
                _spread(arm.quantities.get(quantity.key), quantity, len(arm.seeds) - len(arm.diverged))
                for quantity in shown
            ),
        )
        for arm in result.arms
    ]
    return Cells("Arms: mean and standard deviation over seeds", columns, tuple(rows))


def _comparisons(result: StudyResult) -> Cells:
    quantity = headline(result)
    columns = ("comparison", "at", "pairs", "difference", "bootstrap", "t interval", "t", "p", "by seed")
    rows = [
        (_title(c), c.kind, *_paired(c.quantities[quantity.key], quantity))
        for c in result.comparisons
        if quantity.key in c.quantities
    ]
    return Cells(f"Paired differences in {_heading(quantity)}", columns, tuple(rows))


def _paired(pair: PairedDifference, quantity: Quantity) -> tuple[str, ...]:
    by_seed = zip(pair.seeds, pair.differences, strict=True)
    return (
        str(len(pair.seeds)),
        _signed(pair.mean, quantity),
        _interval(pair.bootstrap, quantity),
        _interval(pair.t_interval, quantity),
        "-" if pair.t is None else f"{pair.t:.2f}",
        "-" if pair.p is None else f"{pair.p:.3g}",
        ", ".join(f"{seed}: {_signed(difference, quantity)}" for seed, difference in by_seed),
    )


def _differences(result: StudyResult) -> Cells:
    first = headline(result).key
    shown = [q for q in shown_quantities(result) if q.key != first and q.key not in _OF_THE_RECIPE]
    rows = [
        (_title(comparison), _heading(quantity), *_paired(comparison.quantities[quantity.key], quantity)[:-1])
        for comparison in result.comparisons
        for quantity in shown
        if quantity.key in comparison.quantities
    ]
    columns = ("comparison", "quantity", "pairs", "difference", "bootstrap", "t interval", "t", "p")
    return Cells("Paired differences in all else", columns, tuple(rows))


def _runs(result: StudyResult) -> Cells:
    shown = shown_quantities(result)
    rows = [
        (
            run.arm,
            str(run.seed),
            *(_number(value_of(run, quantity.key), quantity) for quantity in shown),
            "diverged" if run.measured is None else _kernels(run.measured),
            "-" if run.measured is None else run.measured.checkpoint_sha256[:12],
        )
        for run in result.runs
    ]
    columns = ("arm", "seed", *(_heading(quantity) for quantity in shown), "integer", "checkpoint")
    return Cells("Runs", columns, tuple(rows))


def _kernels(measured: Measured) -> str:
    return "-" if measured.products is None else f"{measured.integer_kernels}/{measured.products}"


def _title(comparison: ComparisonResult) -> str:
    return f"{comparison.of} - {comparison.against}"


def _heading(quantity: Quantity) -> str:
    return f"{quantity.label} {quantity.unit}".strip()


def _number(value: float | None, quantity: Quantity) -> str:
    return "-" if value is None else f"{value:.{quantity.digits}f}"


def _signed(value: float | None, quantity: Quantity) -> str:
    return "-" if value is None else f"{value:+.{quantity.digits}f}"


def _spread(spread: Spread | None, quantity: Quantity, seeds: int) -> str:
    """Mean and deviation, with the number of seeds behind them where it is not that of the arm."""
    if spread is None:
        return _number(None, quantity)
    fewer = "" if spread.n == seeds else f" ({spread.n} of {seeds} seeds)"
    if spread.deviation is None or quantity.key in _OF_THE_RECIPE:
        return f"{_number(spread.mean, quantity)}{fewer}"
    return f"{_number(spread.mean, quantity)} ± {_number(spread.deviation, quantity)}{fewer}"


def _interval(interval: Interval | None, quantity: Quantity) -> str:
    if interval is None:
        return "-"
    return f"{_signed(interval.low, quantity)} to {_signed(interval.high, quantity)}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
