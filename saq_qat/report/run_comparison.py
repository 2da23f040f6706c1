"""Runs side by side: where their recipes differ, and what came out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from saq_qat.recipe.flat import flat
from saq_qat.report.accuracy import accuracy_rows
from saq_qat.report.collect import Collected
from saq_qat.report.runs import outline
from saq_qat.report.verdict import integer_products
from saq_qat_runtime.bench.record import Timing
from saq_qat_runtime.report.text import NOT_MEASURED, aligned, percent, rate, shortened

__all__ = ["ComparedRow", "RunComparison", "compare_runs", "comparison_lines", "shown_result", "shown_value"]

Value = str | int | float | bool | None

_NAMES_WIDTH, _WIDTH = 30, 80


@dataclass(frozen=True)
class ComparedRow:
    """A key of the recipe, or a quantity, and its value in each run; None where it has none there."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class RunComparison:
    """Several runs.

    Attributes:
        recipe: keys whose values differ. results: what was measured of each run's own artifacts.
        set_aside: why figures of some files are not among them.
    """

    runs: tuple[str, ...]
    recipe: tuple[ComparedRow, ...]
    results: tuple[ComparedRow, ...]
    set_aside: tuple[str, ...]


def compare_runs(collected: Sequence[Collected]) -> RunComparison:
    """Recipes and results of runs, of each as its report would show them."""
    return RunComparison(
        runs=tuple(str(known.run) for known in collected),
        recipe=tuple(_recipe_rows(collected)),
        results=tuple(ComparedRow(name, tuple(map(value, collected))) for name, value in _RESULTS.items()),
        set_aside=tuple(f"{known.run}: {each.reason}" for known in collected for each in known.set_aside),
    )


def _recipe_rows(collected: Sequence[Collected]) -> Iterator[ComparedRow]:
    recipes = [flat(known.recipe.model_dump(mode="json")) for known in collected]
    for key in dict.fromkeys(key for recipe in recipes for key in recipe):
        values = tuple(recipe.get(key) for recipe in recipes)
        if any(value != values[0] for value in values):
            yield ComparedRow(key, values)


def _top1(form: str) -> Callable[[Collected], float | None]:
    return lambda known: next((row.top1 for row in accuracy_rows(known) if row.form == form), None)


def _flips(known: Collected) -> int | None:
    return None if known.proof is None else known.proof.agreement.flips


def _timing(known: Collected) -> Timing | None:
    """Of the bundle on the CPU, at the first batch size that was measured."""
    bench = known.bench
    return bench.timing(bench.bundle, bench.batches[0]) if bench is not None and bench.batches else None


def _latency(known: Collected) -> float | None:
    timing = _timing(known)
    return None if timing is None else timing.latency.median_ms


def _over_float(known: Collected) -> float | None:
    timing = _timing(known)
    return None if timing is None or timing.over_float is None else timing.over_float.median


def _over_int8(known: Collected) -> float | None:
    timing = _timing(known)
    return None if timing is None or timing.over_int8 is None else timing.over_int8.median


def _batch(known: Collected) -> int | None:
    timing = _timing(known)
    return None if timing is None else timing.batch


def _file_megabytes(known: Collected) -> float | None:
    sizes = None if known.manifest is None else known.manifest.sizes.file_bytes
    return min(sizes.values()) / 1e6 if sizes else None


def _integers(known: Collected) -> str | None:
    count = integer_products(known)
    return None if count is None else f"{count.integer}/{count.total}"


def _steps(known: Collected) -> int:
    return max((line.get("step", 0) for line in known.log), default=0)


def _seconds(known: Collected) -> float | None:
    ends = [line.get("seconds") for line in known.log if line.get("event") == "end"]
    return ends[-1] if ends else None


_RESULTS: dict[str, Callable[[Collected], Value]] = {
    "state": lambda known: outline(known.run).state,
    "float top-1 %": _top1("float"),
    "fake-quant top-1 %": _top1("fake-quant"),
    "deploy view top-1 %": _top1("deploy view"),
    "ONNX Runtime top-1 %": _top1("ONNX Runtime"),
    "flipped predictions": _flips,
    "integer products": _integers,
    "latency on the CPU, ms": _latency,
    "  at batch": _batch,
    "  times as fast as float32": _over_float,
    "  times as fast as static int8": _over_int8,
    "smallest file, MB": _file_megabytes,
    "training steps": _steps,
    "training time, s": _seconds,
}


def comparison_lines(comparison: RunComparison) -> Iterator[str]:
    """The runs by letter, then both tables; at most eighty columns for up to four runs."""
    letters = [_letter(index) for index in range(len(comparison.runs))]
    yield from (f"{letter}  {run}" for letter, run in zip(letters, comparison.runs, strict=True))
    width = max(10, (_WIDTH - _NAMES_WIDTH) // len(letters) - 2)
    names = max(_NAMES_WIDTH, _WIDTH - len(letters) * (width + 2))
    for title, rows in (("Recipe", comparison.recipe), ("Results", comparison.results)):
        results = rows is comparison.results
        cells = [
            (
                _ending(row.name, names),
                *(
                    shortened(shown_result(row.name, value) if results else shown_value(value), width)
                    for value in row.values
                ),
            )
            for row in rows
        ]
        yield from ("", *(aligned((title, *letters), cells) if cells else [f"{title}: no difference"]))
    if comparison.set_aside:
        yield from ("", "Not shown", *(shortened(f"  {why}", _WIDTH) for why in comparison.set_aside))


def _ending(name: str, width: int) -> str:
    """The end of a dotted key, which tells more than its beginning."""
    return name if len(name) <= width else f"...{name[3 - width :]}"


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def shown_result(name: str, value: Value) -> str:
    """A measured value: two decimals of a percentage, three significant figures of another number."""
    if isinstance(value, float):
        return percent(value) if name.endswith("%") else rate(value)
    return shown_value(value)


def shown_value(value: Value) -> str:
    """A value as people read it: five figures, a dash for None."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, float):
        return f"{value:.5g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
