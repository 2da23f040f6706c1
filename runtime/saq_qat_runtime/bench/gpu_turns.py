"""Latency of TensorRT engines on a GPU, in turns, after trtexec's method."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from saq_qat_runtime.bench.gpu import GpuLatency, TimedRun, gpu_cautions, interleave_gpu
from saq_qat_runtime.bench.gpu_record import GpuTiming
from saq_qat_runtime.bench.gpu_runners import GpuRunner
from saq_qat_runtime.bench.interleave import Latency
from saq_qat_runtime.bench.paired import Ratio, paired_ratio
from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.promises import read_golden

__all__ = ["golden_difference", "measure_engines", "too_large"]

Images = npt.NDArray[np.float32]
_MODES = (False, True)


def too_large(runners: Sequence[GpuRunner], batches: Sequence[int]) -> tuple[str, ...]:
    """Batch sizes that no engine takes, each as a sentence; all engines are built for the same."""
    largest = min(runner.largest_batch for runner in runners)
    fix = "saq-qat-runtime build BUNDLE --batch 1 N N"
    return tuple(
        f"TensorRT at batch {batch}: its engine takes {largest} at most; build it for more: {fix}"
        for batch in batches
        if batch > largest
    )


def golden_difference(runner: GpuRunner, folder: Path, manifest: Manifest) -> float:
    """Largest absolute difference of an engine's golden logits from those in the bundle, which are finite.

    Raises:
        ModelError: the golden file is damaged, or the engine gives logits of another shape.
    """
    inputs, expected = read_golden(folder, manifest)
    found = runner.runner.run(inputs).astype(np.float64)
    rule = f"{folder}: the engine gives logits {found.shape}, the bundle {expected.shape}"
    require(found.shape == expected.shape, f"{rule}. Build it again: saq-qat-runtime build.")
    difference = float(np.abs(found - expected).max())
    return difference if np.isfinite(difference) else float(np.finfo(np.float64).max)


def measure_engines(
    runners: Sequence[GpuRunner],
    images: Images,
    batches: Sequence[int],
    seconds: float,
    on_step: Callable[[str], None],
) -> tuple[list[GpuTiming], dict[int, dict[str, Latency]]]:
    """Without and with transfers, at each batch size that the engines take; samples by batch and name.

    Args:
        images: float32 (N, C, H, W), repeated to fill a batch.
        seconds: for each batch size, shared by engines and modes.

    Raises:
        RuntimeFault: the GPU or the library failed.
    """
    timings: list[GpuTiming] = []
    samples: dict[int, dict[str, Latency]] = {}
    largest = min(runner.largest_batch for runner in runners)
    for batch in (size for size in batches if size <= largest):
        on_step(f"latency on the GPU at batch {batch}")
        samples[batch] = {}
        filled = np.resize(images, (batch, *images.shape[1:]))
        for transfers in _MODES:
            found = _in_turns(runners, filled, transfers, seconds / len(_MODES))
            timings += _timings(runners, found, batch, transfers)
            mode = "with" if transfers else "without"
            samples[batch] |= {f"{name}, {mode} transfers": latency.total for name, latency in found.items()}
    return timings, samples


def _in_turns(
    runners: Sequence[GpuRunner], images: Images, transfers: bool, seconds: float
) -> dict[str, GpuLatency]:
    with ExitStack() as stack:
        runs: dict[str, TimedRun] = {}
        for runner in runners:
            feeds = {runner.backend.inputs[0].name: images}
            runs[runner.name] = stack.enter_context(runner.backend.lend(feeds))
        return interleave_gpu(runs, transfers=transfers, seconds=seconds)


def _timings(
    runners: Sequence[GpuRunner], found: dict[str, GpuLatency], batch: int, transfers: bool
) -> Iterator[GpuTiming]:
    names = {runner.form: runner.name for runner in runners}
    for runner in runners:
        latency = found[runner.name]
        summary = latency.total.summary()
        integer = runner.runner.candidate.integer
        yield GpuTiming(
            candidate=runner.name,
            batch=batch,
            transfers=transfers,
            latency=summary,
            images_per_second=batch * 1000.0 / summary.median_ms,
            enqueue_ms=latency.enqueue.median / 1e6,
            graph=latency.graph,
            over_float32=_ratio(found.get(names.get("float32", "")), latency),
            over_float16=_ratio(found.get(names.get("float16", "")), latency),
            cautions=gpu_cautions(latency, integer=integer if runner.form == "bundle" else None),
        )


def _ratio(theirs: GpuLatency | None, own: GpuLatency) -> Ratio | None:
    return None if theirs is None else paired_ratio(theirs.total, own.total)
