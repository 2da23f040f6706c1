"""Latency to be believed: functions measured after a warm-up, side by side in one run."""

import time
from collections.abc import Callable, Mapping

from saq_qat_runtime.bench.environment import Environment
from saq_qat_runtime.bench.latency import Latency, LatencyComparison, LatencySummary, compare, sample_cautions
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.kernels import IntegerCount

__all__ = [
    "Latency",
    "LatencyComparison",
    "LatencySummary",
    "cautions",
    "check_extent",
    "compare",
    "interleave",
    "measure",
]

Call = Callable[[], object]
Clock = Callable[[], int]

_NANOSECONDS = 1_000_000_000


def measure(
    function: Call,
    *,
    warmup_seconds: float = 0.5,
    iterations: int | None = None,
    seconds: float | None = None,
    clock: Clock = time.perf_counter_ns,
) -> Latency:
    """Time `function` after a warm-up, `iterations` times or for `seconds`; one of the two."""
    functions = {"": function}
    return _take_turns(functions, warmup_seconds, iterations, seconds, clock)[""]


def interleave(
    functions: Mapping[str, Call],
    *,
    baseline: str | None = None,
    warmup_seconds: float = 0.5,
    iterations: int | None = None,
    seconds: float | None = None,
    clock: Clock = time.perf_counter_ns,
) -> LatencyComparison:
    """Time functions in turns, A B A B, so that a slow minute of the machine slows them all.

    baseline: the first function if None. iterations: of each function; seconds: of all of them together.
    """
    first = next(iter(functions), None) if baseline is None else baseline
    if first is None or first not in functions:
        raise InputError(f"The baseline must be one of {sorted(functions)}, got {baseline!r}.")
    return compare(_take_turns(functions, warmup_seconds, iterations, seconds, clock), first)


def cautions(
    latency: Latency,
    environment: Environment,
    *,
    threads: int | None = None,
    integer: IntegerCount | None = None,
) -> tuple[str, ...]:
    """What a reader must know before quoting the figures.

    environment: read before the measurement, so that its load is that of others. integer: if quantized.
    """
    found = list(sample_cautions(latency))
    free = max(0.0, environment.usable_cores - (environment.load_average or 0.0))
    if free < (threads or 1):
        cores = f"{free:.1f} of {environment.usable_cores:g} cores free"
        wanted = f"{threads} threads" if threads and threads > 1 else "1 thread"
        found.append(f"busy machine: {cores} for {wanted}")
    if environment.governor not in (None, "performance"):
        found.append(f"CPU frequency governor is {environment.governor!r}: clocks may change during a run")
    if integer is not None and integer.integer < integer.total:
        found.append(f"not to be called integer: {integer.label}")
    return tuple(found)


def check_extent(iterations: int | None, seconds: float | None) -> None:
    """Raise InputError unless a measurement is to last either some iterations or some seconds."""
    if (iterations is None) == (seconds is None) or (iterations is not None and iterations < 1):
        raise InputError(
            f"Give iterations (at least 1) or seconds, not both; got {iterations} and {seconds}."
        )


def _take_turns(
    functions: Mapping[str, Call],
    warmup_seconds: float,
    iterations: int | None,
    seconds: float | None,
    clock: Clock,
) -> dict[str, Latency]:
    check_extent(iterations, seconds)
    for function in functions.values():
        _call_for(function, warmup_seconds / len(functions), clock)
    samples: dict[str, list[int]] = {name: [] for name in functions}
    end = clock() + round((seconds or 0.0) * _NANOSECONDS)
    turns = 0
    while turns < (iterations or 1) or (seconds is not None and clock() < end):
        for name, function in functions.items():
            start = clock()
            function()
            samples[name].append(clock() - start)
        turns += 1
    return {name: Latency(tuple(durations)) for name, durations in samples.items()}


def _call_for(function: Call, seconds: float, clock: Clock) -> None:
    end = clock() + round(seconds * _NANOSECONDS)
    function()
    while clock() < end:
        function()
