"""A latency measurement as text: verdicts, a table for each batch size, integer products, sizes, warnings."""

from collections.abc import Iterator

from saq_qat_runtime.bench.environment import Environment
from saq_qat_runtime.bench.paired import ENOUGH_PAIRS, Ratio
from saq_qat_runtime.bench.record import Bench, Candidate, Timing
from saq_qat_runtime.bundle.records import Sizes
from saq_qat_runtime.report.gpu_text import gpu_lines, gpu_machine_lines, gpu_verdicts, gpu_warnings
from saq_qat_runtime.report.narrow import column_lines, fitted
from saq_qat_runtime.report.text import (
    NOT_MEASURED,
    RATE,
    RATE_NOTE,
    counted,
    megabytes,
    milliseconds,
    percent,
    rate,
    section,
    times,
)

__all__ = [
    "bench_text",
    "bench_warnings",
    "candidate_lines",
    "describe_machine",
    "latency_tables",
    "pace",
    "size_lines",
    "speed_verdicts",
]

_HEADER = (
    "",
    "median ms",
    "95 % interval",
    "p90",
    "p95",
    "p99",
    "calls",
    RATE,
    "over fp32",
    "over int8",
    "over NNCF",
)
_NNCF_COLUMN = _HEADER.index("over NNCF")


def bench_text(bench: Bench) -> list[str]:
    """The whole measurement, line by line, in 80 columns."""
    lines = [
        *speed_verdicts(bench),
        *latency_tables(bench),
        *gpu_lines(bench),
        *section("What ran", candidate_lines(bench)),
        *section("Size", size_lines(bench.sizes)),
        *section("Machine", describe_machine(bench.environment, bench.threads)),
        *(section("GPU", gpu_machine_lines(bench.gpu)) if bench.gpu else []),
        *section("Warnings", bench_warnings(bench) or ["none"]),
        *section("Notes", [*bench.notes, RATE_NOTE]),
    ]
    return fitted(lines)


def speed_verdicts(bench: Bench) -> list[str]:
    """One line for each batch size: how fast the bundle is, with a word for what kind of network it is."""
    return [*(_verdict(bench, batch) for batch in bench.batches), *gpu_verdicts(bench)]


def _verdict(bench: Bench, batch: int) -> str:
    timing, candidate = bench.timing(bench.bundle, batch), bench.candidate(bench.bundle)
    if timing is None or candidate is None:
        return f"batch {batch}: the bundle was not measured"
    label = "" if candidate.integer is None else f", {candidate.integer.label}"
    where = f"batch {batch}, {counted(bench.threads, 'thread')}"
    return f"{where}: {pace(timing)}{_beside_int8(timing)}{label}"


def pace(timing: Timing) -> str:
    """How fast the bundle is beside float32, in words that do not flatter."""
    ratio = timing.over_float
    if ratio is None:
        return f"{milliseconds(timing.latency.median_ms)} ms; {_no_ratio(timing.latency.count)}"
    interval = "" if ratio.low is None else f" (95 % interval {times(ratio.low)} to {times(ratio.high)})"
    if ratio.median < 1:
        return f"SLOWER than float32 on ONNX Runtime: {times(ratio.median)} its speed{interval}"
    return f"{times(ratio.median)} the speed of float32 on ONNX Runtime{interval}"


def _no_ratio(count: int) -> str:
    if count < ENOUGH_PAIRS:
        return f"{counted(count, 'sample')}, and a ratio needs {ENOUGH_PAIRS}"
    return "float32 was not measured beside it"


def _beside_int8(timing: Timing) -> str:
    int8 = "" if timing.over_int8 is None else f", {times(timing.over_int8.median)} that of its static int8"
    if timing.over_nncf is None:
        return int8
    return f"{int8}, {times(timing.over_nncf.median)} that of NNCF's int8 on OpenVINO"


def latency_tables(bench: Bench) -> list[str]:
    """A table for each batch size."""
    lines: list[str] = []
    beside_nncf = any(timing.over_nncf is not None for timing in bench.timings)
    for batch in bench.batches:
        rows = [_HEADER, *(_row(timing) for timing in bench.timings if timing.batch == batch)]
        if not beside_nncf:
            rows = [(*row[:_NNCF_COLUMN], *row[_NNCF_COLUMN + 1 :]) for row in rows]
        table = column_lines(rows[0], rows[1:])
        lines += section(f"Latency at batch {batch}, {counted(bench.threads, 'thread')}", table)
    return lines


def _row(timing: Timing) -> tuple[str, ...]:
    latency = timing.latency
    low, high = latency.median_low_ms, latency.median_high_ms
    interval = NOT_MEASURED if low is None else f"{milliseconds(low)} .. {milliseconds(high)}"
    return (
        timing.candidate,
        milliseconds(latency.median_ms),
        interval,
        milliseconds(latency.p90_ms),
        milliseconds(latency.p95_ms),
        milliseconds(latency.p99_ms),
        str(latency.count),
        rate(timing.images_per_second),
        times(_median(timing.over_float)),
        times(_median(timing.over_int8)),
        times(_median(timing.over_nncf)),
    )


def _median(ratio: Ratio | None) -> float | None:
    return None if ratio is None else ratio.median


def candidate_lines(bench: Bench) -> list[str]:
    """Who took part: integer products, file, accuracy, engine."""
    rows = [
        (
            candidate.name,
            _integer(candidate),
            megabytes(candidate.file_bytes),
            percent(candidate.top1),
            candidate.engine,
            candidate.network,
        )
        for candidate in bench.candidates
    ]
    images = f"top-1 % of {bench.accuracy_images}" if bench.accuracy_images else "top-1 %"
    names = ("", "integer products", "file", images, "engine", "network")
    return column_lines(names, rows, words=(0, 4, 5))


def _integer(candidate: Candidate) -> str:
    count = candidate.integer
    return NOT_MEASURED if count is None else f"{count.integer}/{count.total}"


def size_lines(sizes: Sizes) -> list[str]:
    """Parameters, and what they take in float32, at their bits, and in each file."""
    ideal = sizes.theoretical_bits / 8
    lines = [
        f"{sizes.parameters:,} parameters: {megabytes(sizes.float_bytes)} in float32",
        f"{megabytes(ideal)} at their bit-widths ({times(sizes.float_bytes / ideal)} smaller, in theory)",
    ]
    for target, count in sizes.file_bytes.items():
        lines.append(
            f"{megabytes(count)} in the file for {target} ({times(sizes.float_bytes / count)} smaller)"
        )
    return lines


def describe_machine(environment: Environment, threads: int) -> list[str]:
    """Processor, system, load and versions."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    load = "unknown" if environment.load_average is None else f"{environment.load_average:.2f}"
    return [
        f"{environment.cpu} ({environment.architecture}), {counted(environment.cores, 'core')}, "
        f"{environment.usable_cores:g} usable, {threads} used, load {load} before the measurement",
        f"{environment.system}, Python {environment.python}, {versions}",
    ]


def bench_warnings(bench: Bench) -> list[str]:
    """Everything to know before quoting a figure, each once."""
    return list(dict.fromkeys(_warnings(bench)))


def _warnings(bench: Bench) -> Iterator[str]:
    if not bench.gate_passed:
        yield "the bundle failed its exactness gate: its integers are not proved to be the trained ones"
    yield from gpu_warnings(bench)
    for timing in bench.timings:
        ratio = timing.over_float
        if timing.candidate == bench.bundle and ratio is not None and ratio.median < 1:
            speed = f"slower than float32 ({times(ratio.median)} its speed)"
            yield f"{bench.bundle}, batch {timing.batch}: {speed}"
        for caution in timing.cautions:
            of_machine = caution.startswith(("busy machine", "CPU frequency"))
            yield caution if of_machine else f"{timing.candidate}, batch {timing.batch}: {caution}"
