"""Latency of a bundle beside its baselines: who takes part, measured in one process and one run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from saq_qat.bench.engines import baseline_runners, float_network, with_accuracy
from saq_qat.bench.gpu_engines import float_engines
from saq_qat.bench.openvino_baselines import openvino_baselines
from saq_qat.data.batches import val_batches
from saq_qat.data.sample import sample_validation
from saq_qat.errors import ArtifactError
from saq_qat.train.choose import checkpoint_with
from saq_qat.train.restore import Restored, restore
from saq_qat_runtime.bench.cpu import BenchSize
from saq_qat_runtime.bench.record import BUNDLE_OPENVINO, Bench, Samples
from saq_qat_runtime.bench.run import BackendChoice, OnStep, Subject, measure_subject, open_subject
from saq_qat_runtime.bench.runners import Runner
from saq_qat_runtime.bundle.manifest import MANIFEST_FILE, Manifest
from saq_qat_runtime.tensorrt.backend import Machine

__all__ = ["bench_run"]

_PACKAGES = ("saq-qat", "torch", "numpy", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
_FLOAT_NOTE = (
    "The baselines have the run's own weights with the quantizers taken out. Their latency is that of any "
    "weights; they were never trained in float, so their top-1 is not what a float training would reach."
)


def bench_run(
    run: Path,
    folder: Path,
    size: BenchSize,
    *,
    backend: BackendChoice = "auto",
    baselines: bool = True,
    machine: Machine | None = None,
    on_step: OnStep = lambda _: None,
) -> tuple[Bench, Samples]:
    """Measure a run's bundle, in ``folder``, on its validation images and beside its network in other forms.

    The other forms are of the checkpoint that the bundle was exported from.

    Args:
        backend: "auto" takes every one that the bundle has a model for and that can run here, and notes why
            others did not; any other takes that one alone.
        baselines: whether to measure the other forms.
        machine: how to reach GPU and engine libraries; this one, if left out.

    Raises:
        ArtifactError: there is no bundle, the run has its checkpoint no more, or is in full precision.
        ModelError: the bundle is damaged.
        BackendUnavailable: the one that was asked for cannot run here, or none can.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise ArtifactError(f"{folder}: no bundle to measure. Write it with: saq-qat export {run}")
    manifest = Manifest.load(folder)
    restored = restore(run, checkpoint_with(run, manifest.checkpoint_sha256))
    on_step("loading the bundle")
    sample = sample_validation(restored.images, size.accuracy_images)
    images = next(iter(val_batches(sample, batch_size=max(size.batches))))[0].numpy()
    subject = open_subject(folder, manifest, images, size, backend, machine)
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
    with _torch_threads(size.threads):
        return measure_subject(subject, size, on_step, _PACKAGES)


def _with_baselines(subject: Subject, restored: Restored, size: BenchSize) -> Subject:
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


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """PyTorch, for context, has as many threads as the engines."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
