"""Latency on a GPU, taken by CUDA events on the stream itself; engines of one run take turns.

The method is trtexec's (samples/common/sampleInference.cpp and sampleReporting.cpp of NVIDIA/TensorRT):
warm-up by time, one run enqueued ahead so that the GPU never waits for the host, percentiles by rank, and
warnings about unsteady figures and a host that cannot keep up.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack

from saq_qat_runtime.bench.gpu_timer import RUNS_PER_TURN, Clock, GpuLatency, GpuTimer, TimedRun
from saq_qat_runtime.bench.interleave import check_extent
from saq_qat_runtime.bench.latency import sample_cautions
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.kernels import IntegerCount

__all__ = ["GpuLatency", "TimedRun", "gpu_cautions", "interleave_gpu", "measure_gpu"]

_NANOSECONDS = 1_000_000_000
_WARMUP_SECONDS = 0.2
_UNSTEADY = 0.025
_HOST_BOUND = 0.8


def measure_gpu(
    run: TimedRun,
    *,
    transfers: bool = True,
    warmup_seconds: float = _WARMUP_SECONDS,
    iterations: int | None = None,
    seconds: float | None = None,
    clock: Clock = time.perf_counter_ns,
) -> GpuLatency:
    """Time one engine alone, `iterations` times or for `seconds`; see `interleave_gpu`."""
    return interleave_gpu(
        {"": run},
        transfers=transfers,
        warmup_seconds=warmup_seconds,
        iterations=iterations,
        seconds=seconds,
        clock=clock,
    )[""]


def interleave_gpu(
    runs: Mapping[str, TimedRun],
    *,
    transfers: bool = True,
    warmup_seconds: float = _WARMUP_SECONDS,
    iterations: int | None = None,
    seconds: float | None = None,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, GpuLatency]:
    """Time engines on one GPU in turns of ten runs, so that a slow minute slows them all.

    The first run of a turn finds an idle GPU and is not counted: its events would time the host.
    transfers: time the copies too. iterations: of each engine; seconds: of all together, the warm-up aside.
    Compare what comes out with `bench.compare`. Raises InputError, or RuntimeFault where the GPU fails.
    """
    check_extent(iterations, seconds)
    if not runs:
        raise InputError("Give at least one engine to measure.")
    with ExitStack() as stack:
        timers = {name: GpuTimer(run, transfers, clock, stack) for name, run in runs.items()}
        for timer in timers.values():
            timer.warm_up(warmup_seconds / len(timers))
        end = clock() + round((seconds or 0.0) * _NANOSECONDS)
        left = iterations or RUNS_PER_TURN
        while left > 0 or (seconds is not None and clock() < end):
            for timer in timers.values():
                timer.turn(min(left, RUNS_PER_TURN) if iterations else RUNS_PER_TURN)
            left -= RUNS_PER_TURN
        return {name: timer.latency() for name, timer in timers.items()}


def gpu_cautions(
    latency: GpuLatency, *, clocks_locked: bool | None = None, integer: IntegerCount | None = None
) -> tuple[str, ...]:
    """What a reader must know before quoting the figures.

    clocks_locked: None if nobody knows. integer: of a quantized engine.
    """
    found = list(sample_cautions(latency.compute))
    variation, compute, enqueue = latency.compute.variation, latency.compute.median, latency.enqueue.median
    if variation > _UNSTEADY:
        found.append(f"unsteady: the computation's coefficient of variation is {variation:.1%}, above 2.5 %")
    if enqueue > _HOST_BOUND * compute:
        kind = "replaying a CUDA graph" if latency.graph else "without a CUDA graph"
        found.append(
            f"bound by the host: enqueuing ({kind}) takes {enqueue / compute:.0%} of the computation"
        )
    if not clocks_locked:
        state = "not locked" if clocks_locked is False else "not known to be locked"
        found.append(f"GPU clocks are {state} (nvidia-smi --lock-gpu-clocks): they may change during a run")
    if integer is not None and integer.integer < integer.total:
        found.append(f"not to be called integer: {integer.label}")
    return tuple(found)
