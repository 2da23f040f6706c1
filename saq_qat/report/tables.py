"""The tables of a report as plain cells: text lays them out in columns, a page in HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

from saq_qat.report.accuracy import accuracy_rows
from saq_qat.report.collect import Collected
from saq_qat.report.verdict import comparisons
from saq_qat_runtime.bench.gpu_record import GpuBench
from saq_qat_runtime.bench.interleave import LatencySummary
from saq_qat_runtime.bench.paired import Ratio
from saq_qat_runtime.report.text import NOT_MEASURED, RATE, megabytes, milliseconds, percent, rate, times

__all__ = [
    "Histogram",
    "Table",
    "accuracy_table",
    "candidate_table",
    "gpu_table",
    "latency_table",
    "proof_table",
    "size_table",
]


_MOST_COLUMNS = 10


@dataclass(frozen=True)
class Histogram:
    """A small picture in a cell: bars, the codes under them, and the two ends beyond which values clip.

    Attributes:
        bars, codes: paths in a box of 160 by 40. ends: places of the smallest and the largest code.
        title: what a pointer is told.
    """

    bars: str
    codes: str
    ends: tuple[float, float]
    title: str


@dataclass(frozen=True)
class Table:
    """Columns and rows; the first column names a row.

    Attributes:
        words: columns that hold words; the others hold numbers. bad: rows that are marked.
        note: said below.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | Histogram, ...], ...]
    words: tuple[int, ...] = (0,)
    bad: tuple[int, ...] = ()
    note: str = ""

    @property
    def is_wide(self) -> bool:
        """Whether a page of 800 pixels has no room for the columns side by side."""
        return len(self.columns) > _MOST_COLUMNS


def accuracy_table(known: Collected) -> Table:
    """Every form of the network side by side."""
    rows = [
        (
            row.form,
            percent(row.top1),
            percent(row.top5),
            NOT_MEASURED if row.images is None else f"{row.images:,}",
            NOT_MEASURED if row.flips is None else f"{row.flips:,}",
            row.source,
        )
        for row in accuracy_rows(known)
    ]
    return Table(("form", "top-1 %", "top-5 %", "images", "flips", "from"), tuple(rows), (0, 5))


def proof_table(known: Collected) -> Table | None:
    """The comparisons of the proof; None if there was none."""
    found = comparisons(known)
    rows = tuple(
        (
            each.name,
            "pass" if each.passed else "FAIL",
            "hard" if each.hard else "soft",
            f"{each.compared:,}",
            f"{each.mismatches:,}",
            each.detail,
        )
        for each in found
    )
    bad = tuple(index for index, each in enumerate(found) if not each.passed)
    columns = ("comparison", "outcome", "kind", "compared", "differ", "detail")
    return Table(columns, rows, (0, 1, 2, 5), bad) if rows else None


def latency_table(known: Collected, batch: int) -> Table:
    """Every candidate at one batch size."""
    bench = known.bench
    timings = [] if bench is None else [timing for timing in bench.timings if timing.batch == batch]
    beside_nncf = any(timing.over_nncf is not None for timing in timings)
    columns = (
        "candidate",
        *_LATENCY,
        "over fp32",
        "over int8",
        *(["over NNCF"] if beside_nncf else []),
    )
    rows = tuple(
        (
            timing.candidate,
            *_latency(timing.latency, timing.images_per_second),
            _ratio(timing.over_float),
            _ratio(timing.over_int8),
            *([_ratio(timing.over_nncf)] if beside_nncf else []),
        )
        for timing in timings
    )
    return Table(columns, rows)


def gpu_table(gpu: GpuBench, batch: int) -> Table:
    """Every engine at one batch size, without and with the copies to the GPU and back."""
    columns = ("engine", "copies", *_LATENCY, "over fp32", "over fp16", "enqueue ms", "CUDA graph")
    rows = tuple(
        (
            timing.candidate,
            "with" if timing.transfers else "without",
            *_latency(timing.latency, timing.images_per_second),
            _ratio(timing.over_float32),
            _ratio(timing.over_float16),
            milliseconds(timing.enqueue_ms),
            "yes" if timing.graph else "no",
        )
        for timing in gpu.timings
        if timing.batch == batch
    )
    return Table(columns, rows, (0, 1, 12))


_LATENCY = ("median ms", "95 % interval", "p90", "p95", "p99", "calls", RATE)


def _latency(latency: LatencySummary, images_per_second: float) -> tuple[str, ...]:
    low, high = latency.median_low_ms, latency.median_high_ms
    return (
        milliseconds(latency.median_ms),
        NOT_MEASURED if low is None else f"{milliseconds(low)} to {milliseconds(high)}",
        milliseconds(latency.p90_ms),
        milliseconds(latency.p95_ms),
        milliseconds(latency.p99_ms),
        f"{latency.count:,}",
        rate(images_per_second),
    )


def _ratio(ratio: Ratio | None) -> str:
    return times(None if ratio is None else ratio.median)


def candidate_table(known: Collected) -> Table | None:
    """Who took part in the measurement; None if there was none."""
    if known.bench is None:
        return None
    rows = tuple(
        (
            each.name,
            NOT_MEASURED if each.integer is None else f"{each.integer.integer}/{each.integer.total}",
            megabytes(each.file_bytes),
            percent(each.top1),
            each.engine,
            each.network,
        )
        for each in known.bench.candidates
    )
    images = f"top-1 % of {known.bench.accuracy_images:,}"
    return Table(("candidate", "integer products", "file", images, "engine", "network"), rows, (0, 4, 5))


def size_table(known: Collected) -> Table | None:
    """What the parameters take, in float32, at their bits, and in each file; None without a bundle."""
    if known.manifest is None:
        return None
    sizes = known.manifest.sizes
    ideal = sizes.theoretical_bits / 8
    rows: list[Sequence[str]] = [
        (f"{sizes.parameters:,} parameters in float32", megabytes(sizes.float_bytes), times(1.0)),
        ("at their bit-widths, in theory", megabytes(ideal), times(sizes.float_bytes / ideal)),
    ]
    rows += [
        (f"file for {target}", megabytes(count), times(sizes.float_bytes / count))
        for target, count in sizes.file_bytes.items()
    ]
    return Table(("", "size", "smaller"), tuple(map(tuple, rows)))
