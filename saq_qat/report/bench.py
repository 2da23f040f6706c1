"""Latency of a bundle beside its baselines: every contestant in turns, in one process and one run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from saq_qat.data.batches import val_batches
from saq_qat.data.sample import sample_validation
from saq_qat.errors import ArtifactError
from saq_qat.report.bench_record import (
    BUNDLE,
    FLOAT,
    SCHEMA_VERSION,
    STATIC_INT8,
    Bench,
    Ratio,
    Samples,
    Timing,
)
from saq_qat.report.contestants import Entrant, baseline_entrants, bundle_entrants, with_accuracy
from saq_qat.train.restore import restore
from saq_qat_runtime.bench import Comparison, Latency, cautions, interleave
from saq_qat_runtime.bundle import read_golden
from saq_qat_runtime.environment import Environment, read_environment
from saq_qat_runtime.manifest import MANIFEST_FILE, Manifest

__all__ = ["BenchSize", "bench_bundle", "bench_run"]

OnStep = Callable[[str], None]

_PACKAGES = ("saq-qat", "torch", "numpy", "onnx", "onnxruntime", "openvino")
_CONTEXT_SHARE = 0.25
_LATENCY_NOTE = (
    "Latency is that of the engine's call alone: images lie in memory, preprocessing is not counted."
)
_BITS_NOTE = (
    "Codes of 2 to 7 bits run on 8-bit kernels: fewer bits bring a smaller file, not a faster kernel."
)
_FLOAT_NOTE = (
    "The baselines have the run's own weights with the quantizers taken out. Their latency is that of any "
    "weights; they were never trained in float, so their top-1 is not what a float training would reach."
)


@dataclass(frozen=True)
class BenchSize:
    """How much to measure.

    Attributes:
        seconds: for each batch size, shared by the engines; PyTorch, for context, gets a quarter on top.
        accuracy_images: validation images that the engines classify; None takes all.
    """

    batches: tuple[int, ...] = (1,)
    threads: int = 1
    seconds: float = 10.0
    warmup_seconds: float = 1.0
    accuracy_images: int | None = 1000


@dataclass(frozen=True)
class _Subject:
    """What is measured, and on what.

    Attributes:
        images: float32 (N, C, H, W), repeated to fill a batch. accuracy_images: how many gave the top-1.
    """

    manifest: Manifest
    entrants: Sequence[Entrant]
    images: npt.NDArray[np.float32]
    accuracy_images: int
    notes: tuple[str, ...]


def bench_bundle(folder: Path, size: BenchSize, on_step: OnStep = lambda _: None) -> tuple[Bench, Samples]:
    """Measure a bundle alone, on its golden images.

    Raises:
        ModelError: it is missing or damaged.
    """
    manifest = Manifest.load(folder)
    images, _ = read_golden(folder, manifest)
    on_step("loading the bundle")
    entrants = bundle_entrants(folder, manifest, size.threads)
    return _measure(_Subject(manifest, entrants, images, 0, (_LATENCY_NOTE, _BITS_NOTE)), size, on_step)


def bench_run(
    run: Path, folder: Path, size: BenchSize, *, baselines: bool = True, on_step: OnStep = lambda _: None
) -> tuple[Bench, Samples]:
    """Measure a run's bundle, in ``folder``, on its validation images and beside its network in other forms.

    Args:
        baselines: whether to measure the other forms.

    Raises:
        ArtifactError: there is no bundle, or the run is in full precision. ModelError: the bundle is damaged.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise ArtifactError(f"{folder}: no bundle to measure. Write it with: saq-qat export {run}")
    manifest = Manifest.load(folder)
    restored = restore(run)
    on_step("loading the bundle")
    entrants = bundle_entrants(folder, manifest, size.threads)
    notes: tuple[str, ...] = (_LATENCY_NOTE, _BITS_NOTE)
    if baselines:
        on_step("exporting the same network in float32 and static int8")
        entrants += baseline_entrants(restored, size.threads)
        notes = (*notes, _FLOAT_NOTE)
    sample = sample_validation(restored.images, size.accuracy_images)
    on_step(f"top-1 of the engines on {len(sample.val)} images")
    entrants = [e if e.context else with_accuracy(e, val_batches(sample, batch_size=32)) for e in entrants]
    images = next(iter(val_batches(sample, batch_size=max(size.batches))))[0].numpy()
    return _measure(_Subject(manifest, entrants, images, len(sample.val), notes), size, on_step)


def _measure(subject: _Subject, size: BenchSize, on_step: OnStep) -> tuple[Bench, Samples]:
    environment = read_environment(_PACKAGES)
    manifest = subject.manifest
    timings: list[Timing] = []
    samples: dict[int, dict[str, Latency]] = {}
    with _torch_threads(size.threads):
        for batch in size.batches:
            on_step(f"latency at batch {batch}")
            samples[batch] = {}
            for comparison in _comparisons(subject, batch, size):
                timings += _timings(comparison, batch, subject, size, environment)
                samples[batch] = {**comparison.latencies, **samples[batch]}
    bench = Bench(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        name=manifest.name,
        model_sha256=manifest.models["onnxruntime"].sha256,
        gate_passed=manifest.gate.passed,
        threads=size.threads,
        seconds=size.seconds,
        accuracy_images=subject.accuracy_images,
        contestants=tuple(entrant.contestant for entrant in subject.entrants),
        timings=tuple(timings),
        sizes=manifest.sizes,
        environment=environment,
        notes=subject.notes,
    )
    return bench, samples


def _comparisons(subject: _Subject, batch: int, size: BenchSize) -> Iterator[Comparison]:
    """Engines in turns; then what is there for context, in turns with float32 on ONNX Runtime."""
    images = np.resize(subject.images, (batch, *subject.images.shape[1:]))
    entrants = {entrant.contestant.name: entrant for entrant in subject.entrants}
    engines = {name: entrant for name, entrant in entrants.items() if not entrant.context}
    baseline = FLOAT if FLOAT in entrants else BUNDLE
    turns = [(engines, size.seconds)]
    if len(engines) < len(entrants):
        context = {name: entrant for name, entrant in entrants.items() if entrant.context}
        turns.append(({baseline: entrants[baseline], **context}, size.seconds * _CONTEXT_SHARE))
    for group, seconds in turns:
        functions = {name: partial(entrant.run, images) for name, entrant in group.items()}
        yield interleave(functions, baseline=baseline, warmup_seconds=size.warmup_seconds, seconds=seconds)


def _timings(
    comparison: Comparison, batch: int, subject: _Subject, size: BenchSize, environment: Environment
) -> Iterator[Timing]:
    context = {entrant.contestant.name for entrant in subject.entrants if entrant.context}
    integer = {entrant.contestant.name: entrant.contestant.integer for entrant in subject.entrants}
    for name, latency in comparison.latencies.items():
        if name == comparison.baseline and context & comparison.latencies.keys():
            continue
        summary = latency.summary()
        quantized = integer[name] if name != FLOAT else None
        yield Timing(
            contestant=name,
            batch=batch,
            latency=summary,
            images_per_second=batch * 1000.0 / summary.median_ms,
            over_float=_ratio(comparison, FLOAT, latency),
            over_int8=_ratio(comparison, STATIC_INT8, latency),
            cautions=cautions(latency, environment, threads=size.threads, integer=quantized),
        )


def _ratio(comparison: Comparison, other: str, own: Latency) -> Ratio | None:
    """Turn by turn, because a turn's neighbours share what the machine did at that moment."""
    theirs = comparison.latencies.get(other)
    if theirs is None:
        return None
    # Order statistics hold for any quantity; these samples are ratios, in millionths.
    paired = Latency(
        tuple(round(1e6 * a / max(b, 1)) for a, b in zip(theirs.samples, own.samples, strict=True))
    )
    interval = paired.median_interval()
    low, high = (None, None) if interval is None else (interval[0] / 1e6, interval[1] / 1e6)
    return Ratio(paired.median / 1e6, low, high)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
