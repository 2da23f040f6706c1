"""Latency of a bundle beside its baselines: who takes part, measured in one process and one run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from saq_qat.bench.cpu import BenchSize, measure_cpu
from saq_qat.bench.engines import (
    Runner,
    baseline_runners,
    bundle_runners,
    float_network,
    with_accuracy,
)
from saq_qat.bench.gpu import golden_difference, measure_engines, too_large
from saq_qat.bench.gpu_engines import GpuBundle, GpuRunner, float_engines, open_gpu_bundle
from saq_qat.bench.gpu_machine import read_gpu_machine
from saq_qat.bench.gpu_record import GpuBench
from saq_qat.bench.openvino_baselines import openvino_baselines
from saq_qat.bench.record import BUNDLE_OPENVINO, SCHEMA_VERSION, Bench, Samples, Timing
from saq_qat.data.batches import val_batches
from saq_qat.data.sample import sample_validation
from saq_qat.errors import ArtifactError, SetupError
from saq_qat.train.choose import checkpoint_with
from saq_qat.train.restore import Restored, restore
from saq_qat_runtime.bench.environment import read_environment
from saq_qat_runtime.bench.interleave import Latency
from saq_qat_runtime.bundle.manifest import MANIFEST_FILE, Manifest, bundle_sha256
from saq_qat_runtime.promises import read_golden
from saq_qat_runtime.tensorrt.backend import Machine

__all__ = ["BenchSize", "Engine", "bench_bundle", "bench_run"]

OnStep = Callable[[str], None]
Engine = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]

_PACKAGES = ("saq-qat", "torch", "numpy", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
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
_GPU_NOTE = (
    "GPU times are taken by CUDA events after trtexec's method, engines in turns: the computation alone, or "
    "with the copies to the GPU and back. float32 is computed in float32, without TF32."
)


@dataclass(frozen=True)
class _Subject:
    """What is measured, and on what.

    Attributes:
        images: float32 (N, C, H, W), repeated to fill a batch. accuracy_images: how many gave the top-1.
        not_run: engines that could not take part, each with the reason.
    """

    folder: Path
    manifest: Manifest
    bundle_sha256: str
    runners: Sequence[Runner]
    gpu: GpuBundle | None
    gpu_runners: Sequence[GpuRunner]
    images: npt.NDArray[np.float32]
    accuracy_images: int
    not_run: tuple[str, ...]
    notes: tuple[str, ...]


def bench_bundle(
    folder: Path,
    size: BenchSize,
    on_step: OnStep = lambda _: None,
    *,
    engine: Engine = "auto",
    machine: Machine | None = None,
) -> tuple[Bench, Samples]:
    """Measure a bundle alone, on its golden images.

    Args:
        engine: see ``bench_run``.
        machine: how to reach GPU and engine libraries; this one, if left out.

    Raises:
        ModelError: it is missing or damaged. SetupError, BackendUnavailable: see ``bench_run``.
    """
    manifest = Manifest.load(folder)
    images, _ = read_golden(folder, manifest)
    on_step("loading the bundle")
    subject = _open(folder, manifest, images, size, engine, machine)
    return _measure(subject, size, on_step)


def bench_run(
    run: Path,
    folder: Path,
    size: BenchSize,
    *,
    engine: Engine = "auto",
    baselines: bool = True,
    machine: Machine | None = None,
    on_step: OnStep = lambda _: None,
) -> tuple[Bench, Samples]:
    """Measure a run's bundle, in ``folder``, on its validation images and beside its network in other forms.

    The other forms are of the checkpoint that the bundle was exported from.

    Args:
        engine: "auto" takes every engine that the bundle has a model for and that can run here, and notes why
            others did not; any other takes that one alone.
        baselines: whether to measure the other forms.
        machine: how to reach GPU and engine libraries; this one, if left out.

    Raises:
        ArtifactError: there is no bundle, the run has its checkpoint no more, or is in full precision.
        ModelError: the bundle is damaged.
        BackendUnavailable: the engine that was asked for cannot run here. SetupError: none can.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise ArtifactError(f"{folder}: no bundle to measure. Write it with: saq-qat export {run}")
    manifest = Manifest.load(folder)
    restored = restore(run, checkpoint_with(run, manifest.checkpoint_sha256))
    on_step("loading the bundle")
    sample = sample_validation(restored.images, size.accuracy_images)
    images = next(iter(val_batches(sample, batch_size=max(size.batches))))[0].numpy()
    subject = _open(folder, manifest, images, size, engine, machine)
    if baselines:
        on_step("making the same network in float32, float16 and static int8")
        subject = _with_baselines(subject, restored, size)
    on_step(f"top-1 of the engines on {len(sample.val)} images")

    def judged(runner: Runner) -> Runner:
        return runner if runner.context else with_accuracy(runner, val_batches(sample, batch_size=32))

    subject = replace(
        subject,
        runners=[judged(runner) for runner in subject.runners],
        gpu_runners=[replace(e, runner=judged(e.runner)) for e in subject.gpu_runners],
        accuracy_images=len(sample.val),
    )
    return _measure(subject, size, on_step)


def _open(
    folder: Path,
    manifest: Manifest,
    images: npt.NDArray[np.float32],
    size: BenchSize,
    engine: Engine,
    machine: Machine | None,
) -> _Subject:
    """The bundle on every engine that is wanted and can run."""
    runners, reasons = bundle_runners(folder, manifest, size.threads, engine=engine)
    gpu: GpuBundle | None = None
    if engine not in ("onnxruntime", "openvino"):
        gpu, missing = open_gpu_bundle(folder, manifest, engine, machine or Machine())
        reasons += missing
    if not runners and gpu is None:
        targets = ", ".join(manifest.models)
        why = "\n".join(reasons)
        raise SetupError(
            f"{folder}: this bundle is for {targets} only, and no engine can run it here.\n{why}\n"
            "Measure it on a machine with a GPU, or add onnxruntime to deploy.targets and export again."
        )
    gpu_runners = [] if gpu is None else [gpu.runner]
    notes = (_LATENCY_NOTE, _BITS_NOTE) if gpu is None else (_LATENCY_NOTE, _BITS_NOTE, _GPU_NOTE)
    digest = bundle_sha256(folder)
    return _Subject(folder, manifest, digest, runners, gpu, gpu_runners, images, 0, reasons, notes)


def _with_baselines(subject: _Subject, restored: Restored, size: BenchSize) -> _Subject:
    """The same network in other forms, on each engine that takes part."""
    network = float_network(restored)
    runners, gpu_runners, reasons = [*subject.runners], [*subject.gpu_runners], subject.not_run
    if runners:
        runners += baseline_runners(restored, network, size.threads)
    if any(runner.candidate.name == BUNDLE_OPENVINO for runner in runners):
        found_there, missing_there = openvino_baselines(network, size.threads)
        runners, reasons = [*runners, *found_there], (*reasons, *missing_there)
    if subject.gpu is not None:
        found, missing = float_engines(network.onnx, subject.gpu)
        gpu_runners, reasons = [*gpu_runners, *found], (*reasons, *missing)
    notes = (*subject.notes, _FLOAT_NOTE)
    return replace(subject, runners=runners, gpu_runners=gpu_runners, not_run=reasons, notes=notes)


def _measure(subject: _Subject, size: BenchSize, on_step: OnStep) -> tuple[Bench, Samples]:
    environment = read_environment(_PACKAGES)
    manifest = subject.manifest
    timings: list[Timing] = []
    samples: dict[int, dict[str, Latency]] = {}
    if subject.runners:
        timings, samples = measure_cpu(subject.runners, subject.images, size, environment, on_step)
    gpu, gpu_samples, reasons = _measure_gpu(subject, size, on_step)
    runners = (*subject.runners, *(own.runner for own in subject.gpu_runners))
    bench = Bench(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        name=manifest.name,
        checkpoint_sha256=manifest.checkpoint_sha256,
        bundle_sha256=subject.bundle_sha256,
        gate_passed=manifest.gate.passed,
        threads=size.threads,
        seconds=size.seconds,
        accuracy_images=subject.accuracy_images,
        candidates=tuple(runner.candidate for runner in runners),
        timings=tuple(timings),
        gpu=gpu,
        not_run=(*subject.not_run, *reasons),
        sizes=manifest.sizes,
        environment=environment,
        notes=subject.notes,
    )
    batches = dict.fromkeys((*samples, *gpu_samples))
    return bench, {batch: {**samples.get(batch, {}), **gpu_samples.get(batch, {})} for batch in batches}


def _measure_gpu(
    subject: _Subject, size: BenchSize, on_step: OnStep
) -> tuple[GpuBench | None, dict[int, dict[str, Latency]], tuple[str, ...]]:
    """Timings and samples of the engines on the GPU, and the batch sizes that they do not take."""
    gpu = subject.gpu
    if gpu is None:
        return None, {}, ()
    difference = golden_difference(gpu.runner, subject.folder, subject.manifest)
    reasons = too_large(subject.gpu_runners, size.batches)
    timings, samples = measure_engines(
        subject.gpu_runners, subject.images, size.batches, size.seconds, on_step
    )
    backend = gpu.runner.backend
    found = GpuBench(
        backend=backend.name,
        version=backend.version,
        engine=gpu.runner.name,
        engine_sha256=gpu.record.file.sha256,
        golden_difference=difference,
        golden_tolerance=subject.manifest.golden.logits_tolerance["tensorrt"],
        machine=read_gpu_machine(gpu.machine.device().status),
        timings=tuple(timings),
    )
    return found, samples, reasons
