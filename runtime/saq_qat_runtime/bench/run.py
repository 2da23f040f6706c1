"""Latency of a bundle on the engines of this machine, measured in one process and one run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from saq_qat_runtime.bench.cpu import BenchSize, measure_cpu
from saq_qat_runtime.bench.environment import read_environment
from saq_qat_runtime.bench.gpu_machine import read_gpu_machine
from saq_qat_runtime.bench.gpu_record import GpuBench
from saq_qat_runtime.bench.gpu_runners import GpuBundle, GpuRunner, open_gpu_bundle
from saq_qat_runtime.bench.gpu_turns import golden_difference, measure_engines, too_large
from saq_qat_runtime.bench.interleave import Latency
from saq_qat_runtime.bench.record import SCHEMA_VERSION, Bench, Samples, Timing
from saq_qat_runtime.bench.runners import Runner, bundle_runners
from saq_qat_runtime.bundle.manifest import Manifest, bundle_sha256
from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.promises import read_golden
from saq_qat_runtime.tensorrt.backend import Machine

__all__ = [
    "BACKEND_CHOICES",
    "BackendChoice",
    "OnStep",
    "Subject",
    "bench_bundle",
    "measure_subject",
    "open_subject",
]

OnStep = Callable[[str], None]
BackendChoice = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-lean", "tensorrt-rtx"]
BACKEND_CHOICES: tuple[BackendChoice, ...] = get_args(BackendChoice)

_ON_CPU = ("onnxruntime", "openvino")
_LATENCY_NOTE = (
    "Latency is that of the engine's call alone: images lie in memory, preprocessing is not counted."
)
_BITS_NOTE = (
    "Codes of 2 to 7 bits run on 8-bit kernels: fewer bits bring a smaller file, not a faster kernel."
)
_GPU_NOTE = (
    "GPU times are taken by CUDA events after trtexec's method, engines in turns: the computation alone, or "
    "with the copies to the GPU and back. float32 is computed in float32, without TF32."
)


@dataclass(frozen=True)
class Subject:
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
    backend: BackendChoice = "auto",
    machine: Machine | None = None,
) -> tuple[Bench, Samples]:
    """Measure a bundle alone, on its golden images.

    Args:
        backend: "auto" takes every one that the bundle has a model for and that can run here, and notes why
            others did not; any other takes that one alone.
        machine: how to reach GPU and engine libraries; this one, if left out.

    Raises:
        ModelError: it is missing or damaged. BackendUnavailable: the one that was asked for cannot run here,
            or none can.
    """
    manifest = Manifest.load(folder)
    images, _ = read_golden(folder, manifest)
    on_step("loading the bundle")
    subject = open_subject(folder, manifest, images, size, backend, machine)
    return measure_subject(subject, size, on_step)


def open_subject(
    folder: Path,
    manifest: Manifest,
    images: npt.NDArray[np.float32],
    size: BenchSize,
    backend: BackendChoice,
    machine: Machine | None,
) -> Subject:
    """The bundle on every engine that is wanted and can run.

    Args:
        images: float32 (N, C, H, W), repeated to fill a batch.

    Raises:
        As ``bench_bundle``.
    """
    runners, reasons = bundle_runners(folder, manifest, size.threads, backend=backend)
    gpu: GpuBundle | None = None
    if backend not in _ON_CPU:
        gpu, missing = open_gpu_bundle(folder, manifest, backend, machine or Machine())
        reasons += missing
    if not runners and gpu is None:
        targets = ", ".join(manifest.models)
        why = "\n".join(reasons)
        raise BackendUnavailable(
            f"{folder}: this bundle is for {targets} only, and no engine can run it here.\n{why}\n"
            "Measure it on a machine with a GPU, or add onnxruntime to deploy.targets and export again."
        )
    gpu_runners = [] if gpu is None else [gpu.runner]
    notes = (_LATENCY_NOTE, _BITS_NOTE) if gpu is None else (_LATENCY_NOTE, _BITS_NOTE, _GPU_NOTE)
    digest = bundle_sha256(folder)
    return Subject(folder, manifest, digest, runners, gpu, gpu_runners, images, 0, reasons, notes)


def measure_subject(
    subject: Subject, size: BenchSize, on_step: OnStep, packages: Sequence[str] | None = None
) -> tuple[Bench, Samples]:
    """Latency of everyone in turns, and all samples by batch size and candidate.

    Args:
        packages: whose versions are recorded; those of engines, if left out.

    Raises:
        RuntimeFault: the GPU or a library failed.
    """
    environment = read_environment() if packages is None else read_environment(packages)
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
    subject: Subject, size: BenchSize, on_step: OnStep
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
