"""A trained and exported run, and made-up measurements for what only formats them."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from saq_qat.report.collect import Collected, collect
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.predictions import Agreement, Flip
from saq_qat_export.proof.prove import Proof, ProofSize
from saq_qat_export.proof.verification import Verification, write_verification
from saq_qat_export.run import export_run
from saq_qat_runtime.bench.environment import Environment
from saq_qat_runtime.bench.interleave import Latency
from saq_qat_runtime.bench.paired import Ratio
from saq_qat_runtime.bench.record import (
    BUNDLE,
    FLOAT,
    SCHEMA_VERSION,
    STATIC_INT8,
    Bench,
    Candidate,
    Timing,
    write_bench,
)
from saq_qat_runtime.bundle.files import file_sha256
from saq_qat_runtime.bundle.records import Sizes
from saq_qat_runtime.kernels import IntegerCount
from tests.report.networks import trained_run

INTEGER = IntegerCount(3, 3, {"QGemm": 1, "QLinearConv": 2})


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its bundle; not to be changed."""
    run = trained_run(tmp_path_factory.mktemp("runs") / "tiny")
    export_run(run, run / "export", size=ProofSize(4, 40), allow_failed_gate=True)
    return run


def timing(name: str, batch: int, milliseconds: float) -> Timing:
    samples = tuple(round(milliseconds * 1e6 * (1 + i / 1e4)) for i in range(120))
    summary = Latency(samples).summary()
    over_float, over_int8 = (
        Ratio(other / milliseconds, 0.9 * other / milliseconds, None) for other in (30, 9)
    )
    return Timing(name, batch, summary, 1000 * batch / milliseconds, over_float, over_int8, None, ())


def measured(
    bundle_ms: float = 10.0,
    integer: IntegerCount = INTEGER,
    checkpoint_sha256: str = "0" * 64,
    bundle_sha256: str = "0" * 64,
) -> Bench:
    """A measurement in which float32 takes 30 ms and static int8 9 ms."""
    candidates = (
        Candidate(BUNDLE, "onnxruntime 1", "integers", 1000, integer, 90.0),
        Candidate(FLOAT, "onnxruntime 1", "float", 4000, IntegerCount(0, 3, {"Conv": 3}), 92.5),
        Candidate(STATIC_INT8, "onnxruntime 1", "static", 1100, INTEGER, 91.0),
    )
    timings = (
        timing(BUNDLE, 1, bundle_ms),
        timing(FLOAT, 1, 30.0),
        timing(STATIC_INT8, 1, 9.0),
    )
    return Bench(
        schema_version=SCHEMA_VERSION,
        created="2026-01-01T00:00:00+00:00",
        name="made-up",
        checkpoint_sha256=checkpoint_sha256,
        bundle_sha256=bundle_sha256,
        gate_passed=True,
        threads=1,
        seconds=1.0,
        accuracy_images=40,
        candidates=candidates,
        timings=timings,
        gpu=None,
        not_run=(),
        sizes=Sizes(1000, 4000, 5000, {"onnxruntime": 1000}),
        environment=Environment("CPU", "x86_64", "Linux", "3.11", 2, (0, 1), None, 0.1, None, {"numpy": "2"}),
        notes=("a note",),
    )


@pytest.fixture
def bench() -> Bench:
    return measured()


@pytest.fixture
def slow_float_bench() -> Bench:
    """A bundle that is slower than float32 and runs no product on integers."""
    slow = measured(60.0, IntegerCount(0, 3, {"Conv": 3}))
    return dataclasses.replace(slow, gate_passed=False)


def proof(*, passed: bool = True, flips: int = 1) -> Proof:
    comparison = Comparison("integer reference = ONNX Runtime", True, passed, 1000, 0 if passed else 7, "")
    listed = (Flip(3, 1, 1, 2),) if flips else ()
    return Proof((comparison,), Agreement(40, 90.0, 90.0, 87.5, 0, flips, listed), INTEGER)


@pytest.fixture
def run(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported run, free to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "run"))


@pytest.fixture
def complete(run: Path) -> Collected:
    """The run, proved and measured."""
    prove_and_measure(run, *digests(run))
    return collect(run)


def digests(run: Path) -> tuple[str, str]:
    """Of the checkpoint, and of the bundle."""
    weights, manifest = run / "checkpoints" / "last" / "model.safetensors", run / "export" / "manifest.json"
    return file_sha256(weights), file_sha256(manifest)


def prove_and_measure(run: Path, checkpoint: str, bundle: str) -> None:
    """What verify and bench would leave, bearing these digests."""
    write_verification(
        Verification("2026-01-01", checkpoint, bundle, proof()), run / "report" / "verify.json"
    )
    write_bench(measured(checkpoint_sha256=checkpoint, bundle_sha256=bundle), {}, run / "bench")
