"""Latency of engines on the CPU: every candidate in turns, in one process and one run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from saq_qat_runtime.bench.environment import Environment
from saq_qat_runtime.bench.interleave import Latency, LatencyComparison, cautions, interleave
from saq_qat_runtime.bench.paired import Ratio, paired_ratio
from saq_qat_runtime.bench.record import FLOAT, NNCF_INT8, STATIC_INT8, Timing
from saq_qat_runtime.bench.runners import Runner

__all__ = ["BenchSize", "measure_cpu"]

_CONTEXT_SHARE = 0.25


@dataclass(frozen=True)
class BenchSize:
    """How much to measure.

    Attributes:
        threads: of engines on the CPU.
        seconds: for each batch size, shared by the engines on the CPU, and again by those on the GPU;
            what runs for context gets a quarter on top.
        accuracy_images: validation images that the engines classify; None takes all.
    """

    batches: tuple[int, ...] = (1,)
    threads: int = 1
    seconds: float = 10.0
    warmup_seconds: float = 1.0
    accuracy_images: int | None = 1000


def measure_cpu(
    runners: Sequence[Runner],
    images: npt.NDArray[np.float32],
    size: BenchSize,
    environment: Environment,
    on_step: Callable[[str], None],
) -> tuple[list[Timing], dict[int, dict[str, Latency]]]:
    """Timings, and all samples by batch size and candidate.

    Args:
        images: float32 (N, C, H, W), repeated to fill a batch.
        environment: read before measuring.
    """
    timings: list[Timing] = []
    samples: dict[int, dict[str, Latency]] = {}
    for batch in size.batches:
        on_step(f"latency at batch {batch}")
        samples[batch] = {}
        for comparison in _comparisons(runners, images, batch, size):
            timings += _timings(comparison, batch, runners, size, environment)
            samples[batch] = {**comparison.latencies, **samples[batch]}
    return timings, samples


def _comparisons(
    runners: Sequence[Runner], images: npt.NDArray[np.float32], batch: int, size: BenchSize
) -> Iterator[LatencyComparison]:
    """Engines in turns; then what is there for context, in turns with float32 on ONNX Runtime."""
    images = np.resize(images, (batch, *images.shape[1:]))
    named = {runner.candidate.name: runner for runner in runners}
    engines = {name: runner for name, runner in named.items() if not runner.context}
    baseline = FLOAT if FLOAT in named else next(iter(engines))
    turns = [(engines, size.seconds)]
    if len(engines) < len(named):
        context = {name: runner for name, runner in named.items() if runner.context}
        turns.append(({baseline: named[baseline], **context}, size.seconds * _CONTEXT_SHARE))
    for group, seconds in turns:
        functions = {name: partial(runner.run, images) for name, runner in group.items()}
        yield interleave(functions, baseline=baseline, warmup_seconds=size.warmup_seconds, seconds=seconds)


def _timings(
    comparison: LatencyComparison,
    batch: int,
    runners: Sequence[Runner],
    size: BenchSize,
    environment: Environment,
) -> Iterator[Timing]:
    context = {runner.candidate.name for runner in runners if runner.context}
    integer = {runner.candidate.name: runner.candidate.integer for runner in runners}
    for name, latency in comparison.latencies.items():
        if name == comparison.baseline and context & comparison.latencies.keys():
            continue
        summary = latency.summary()
        quantized = integer[name] if name != FLOAT else None
        yield Timing(
            candidate=name,
            batch=batch,
            latency=summary,
            images_per_second=batch * 1000.0 / summary.median_ms,
            over_float=_ratio(comparison, FLOAT, latency),
            over_int8=_ratio(comparison, STATIC_INT8, latency),
            over_nncf=_ratio(comparison, NNCF_INT8, latency),
            cautions=cautions(latency, environment, threads=size.threads, integer=quantized),
        )


def _ratio(comparison: LatencyComparison, other: str, own: Latency) -> Ratio | None:
    theirs = comparison.latencies.get(other)
    return None if theirs is None else paired_ratio(theirs, own)
