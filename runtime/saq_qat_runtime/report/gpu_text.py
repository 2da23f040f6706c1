"""A measurement on a GPU as text: verdicts, tables, the machine, warnings."""

from collections.abc import Iterator

from saq_qat_runtime.bench.gpu_machine import describe_gpu
from saq_qat_runtime.bench.gpu_record import GpuBench, GpuTiming
from saq_qat_runtime.bench.paired import Ratio
from saq_qat_runtime.bench.record import Bench
from saq_qat_runtime.report.narrow import column_lines
from saq_qat_runtime.report.text import NOT_MEASURED, RATE, milliseconds, rate, section, times

__all__ = ["gpu_lines", "gpu_machine_lines", "gpu_tables", "gpu_verdicts", "gpu_warnings"]

_HEADER = (
    "",
    "median ms",
    "95 % interval",
    "p90",
    "p95",
    "p99",
    "runs",
    RATE,
    "over fp32",
    "over fp16",
    "enqueue ms",
    "CUDA graph",
)


def gpu_verdicts(bench: Bench) -> list[str]:
    """One line for each batch size: how fast the bundle's engine computes beside float16 and float32."""
    return [] if bench.gpu is None else [_verdict(bench, bench.gpu, batch) for batch in _batches(bench.gpu)]


def _verdict(bench: Bench, gpu: GpuBench, batch: int) -> str:
    timing, candidate = gpu.timing(gpu.engine, batch, transfers=False), bench.candidate(gpu.engine)
    if timing is None:
        return f"batch {batch} on the GPU: the bundle was not measured"
    label = "" if candidate is None or candidate.integer is None else f", {candidate.integer.label}"
    pairs = (("float16", timing.over_float16), ("float32", timing.over_float32))
    paces = [_pace(name, ratio) for name, ratio in pairs if ratio is not None]
    pace = ", ".join(paces) or "float engines were not measured beside it"
    median = milliseconds(timing.latency.median_ms)
    return f"batch {batch} on {gpu.machine.name}: {median} ms, {pace}{label}"


def _pace(name: str, ratio: Ratio) -> str:
    interval = "" if ratio.low is None else f" (95 % interval {times(ratio.low)} to {times(ratio.high)})"
    if ratio.median < 1:
        return f"SLOWER than {name}: {times(ratio.median)} its speed{interval}"
    return f"{times(ratio.median)} the speed of {name}{interval}"


def gpu_lines(bench: Bench) -> list[str]:
    """Tables and what could not be measured, as sections."""
    missing = section("Did not take part", bench.not_run) if bench.not_run else []
    return [*([] if bench.gpu is None else gpu_tables(bench.gpu)), *missing]


def gpu_tables(gpu: GpuBench) -> list[str]:
    """A table for each batch size; each engine without and with the copies to the GPU and back."""
    lines: list[str] = []
    for batch in _batches(gpu):
        rows = [_row(timing) for timing in gpu.timings if timing.batch == batch]
        title = f"Latency on the GPU at batch {batch}, {gpu.backend} {gpu.version}"
        lines += section(title, column_lines(_HEADER, rows, words=(0, 11)))
    return lines


def _row(timing: GpuTiming) -> tuple[str, ...]:
    latency = timing.latency
    low, high = latency.median_low_ms, latency.median_high_ms
    return (
        f"{timing.candidate}, {'with' if timing.transfers else 'without'} copies",
        milliseconds(latency.median_ms),
        NOT_MEASURED if low is None else f"{milliseconds(low)} .. {milliseconds(high)}",
        milliseconds(latency.p90_ms),
        milliseconds(latency.p95_ms),
        milliseconds(latency.p99_ms),
        str(latency.count),
        rate(timing.images_per_second),
        times(None if timing.over_float32 is None else timing.over_float32.median),
        times(None if timing.over_float16 is None else timing.over_float16.median),
        milliseconds(timing.enqueue_ms),
        "yes" if timing.graph else "no",
    )


def gpu_machine_lines(gpu: GpuBench | None) -> list[str]:
    """GPU, driver, clocks and library; nothing if none was used."""
    return [] if gpu is None else [*describe_gpu(gpu.machine), f"{gpu.backend} {gpu.version}"]


def gpu_warnings(bench: Bench) -> Iterator[str]:
    """What to know before quoting a figure of the GPU."""
    if bench.gpu is None:
        return
    if not bench.gpu.computes_golden:
        found, allowed = bench.gpu.golden_difference, bench.gpu.golden_tolerance
        yield (
            f"{bench.gpu.engine}: golden logits differ by {found:.3g}, {allowed:.3g} is allowed: the engine "
            "computes something else than the bundle"
        )
    for timing in bench.gpu.timings:
        copies = "with" if timing.transfers else "without"
        for caution in timing.cautions:
            where = f"{timing.candidate}, batch {timing.batch}, {copies} copies"
            yield caution if caution.startswith("GPU clocks") else f"{where}: {caution}"


def _batches(gpu: GpuBench) -> list[int]:
    return list(dict.fromkeys(timing.batch for timing in gpu.timings))
