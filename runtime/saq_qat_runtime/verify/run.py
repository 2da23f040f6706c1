"""One engine of a bundle on the machine at hand: answers, codes and logits beside what was recorded."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from saq_qat_runtime.bench.cpu import BenchSize
from saq_qat_runtime.bench.environment import read_environment
from saq_qat_runtime.bench.run import BACKEND_CHOICES, OnStep, bench_bundle
from saq_qat_runtime.bundle.deploy import ThresholdsRecord
from saq_qat_runtime.bundle.expected import read_expected
from saq_qat_runtime.bundle.manifest import bundle_sha256
from saq_qat_runtime.codes import CodeComparison, compare_codes
from saq_qat_runtime.promises import read_golden
from saq_qat_runtime.session import Session
from saq_qat_runtime.verify.answers import OnImages, compare_answers, find_images
from saq_qat_runtime.verify.record import SCHEMA_VERSION, Answers, EngineVerification

__all__ = ["failures_of", "measured", "to_json", "verify_session"]

_BATCH = 32
_NO_CODES = (
    "not compared: {backend} keeps its codes to itself; it is judged by its answers and the golden logits"
)


def verify_session(
    session: Session,
    folder: Path,
    data: Path,
    *,
    batch: int = _BATCH,
    on_images: OnImages = lambda _: None,
) -> EngineVerification:
    """Compare the engine of `session`, which was loaded from `folder`, with what the bundle records.

    data: folder of validation images. on_images: told how many were classified more.

    Raises:
        DataError: images are missing or damaged. ModelError: the bundle is damaged.
        RuntimeFault: the engine failed.
    """
    info, manifest = session.info, session.info.manifest
    expected = read_expected(folder, manifest)
    files = find_images(expected, data)
    environment = read_environment()
    difference = _golden_difference(session, folder)
    tolerance = manifest.golden.logits_tolerance[info.target]
    codes = compare_codes(folder, manifest, info.threads) if info.target == "onnxruntime" else None
    answers = compare_answers(
        session.run, expected, files, manifest.preprocessing, batch=batch, on_images=on_images
    )
    thresholds = manifest.deploy.thresholds
    failures = failures_of(answers, codes, thresholds, difference, tolerance)
    return EngineVerification(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        name=manifest.name,
        checkpoint_sha256=manifest.checkpoint_sha256,
        bundle_sha256=bundle_sha256(folder),
        gate_passed=manifest.gate.passed,
        backend=info.backend,
        version=info.backend_version,
        target=info.target,
        file=info.model.name,
        file_sha256=info.model.sha256,
        threads=info.threads,
        skipped=info.skipped,
        integer=session.integer_count(),
        golden_difference=difference,
        golden_tolerance=tolerance,
        codes=codes,
        codes_absent="" if codes else _NO_CODES.format(backend=info.backend),
        answers=answers,
        thresholds=thresholds,
        failures=tuple(failures),
        environment=environment,
    )


def measured(
    found: EngineVerification, folder: Path, size: BenchSize, on_step: OnStep = lambda _: None
) -> EngineVerification:
    """With the latency of the engine that was verified; raises as `bench_bundle`."""
    backend = next(name for name in BACKEND_CHOICES if name == found.backend)
    bench, _ = bench_bundle(folder, size, on_step, backend=backend)
    return replace(found, bench=bench)


def to_json(found: EngineVerification) -> dict[str, Any]:
    """As JSON has it, with the verdict."""
    return {"passed": found.passed, **asdict(found)}


def _golden_difference(session: Session, folder: Path) -> float:
    """Largest absolute difference of the golden logits, a finite number."""
    inputs, expected = read_golden(folder, session.info.manifest)
    difference = float(np.abs(session.run(inputs).astype(np.float64) - expected).max())
    return difference if np.isfinite(difference) else float(np.finfo(np.float64).max)


def failures_of(
    answers: Answers,
    codes: CodeComparison | None,
    thresholds: ThresholdsRecord,
    golden_difference: float,
    golden_tolerance: float,
) -> Iterator[str]:
    """What exceeds the thresholds of the recipe and of the golden samples, in words."""
    if answers.top1_drop > thresholds.max_top1_drop:
        yield (
            f"top-1 falls from {answers.fake_quant_top1:.2f} to {answers.engine_top1:.2f} %, by more than "
            f"{thresholds.max_top1_drop:g} points"
        )
    if answers.flip_rate > thresholds.max_flip_rate:
        yield (
            f"{answers.flips} of {answers.images} answers differ from the fake-quant network's, more than "
            f"{100 * thresholds.max_flip_rate:g} %"
        )
    if codes is not None and codes.mismatches:
        yield f"{codes.mismatches:,} of {codes.compared:,} recorded codes differ"
    if not golden_difference <= golden_tolerance:
        yield f"golden logits differ by {golden_difference:.3g}, {golden_tolerance:.3g} is allowed"
