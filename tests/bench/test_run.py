"""A measurement of a real bundle: who took part, what was counted, and that it survives the disk."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from saq_qat.bench.engines import float_network
from saq_qat.bench.run import bench_run
from saq_qat.errors import ArtifactError
from saq_qat.train.restore import restore
from saq_qat_runtime.bench.cpu import BenchSize
from saq_qat_runtime.bench.paired import ENOUGH_PAIRS
from saq_qat_runtime.bench.record import BUNDLE, FLOAT, STATIC_INT8, Bench, Samples, read_bench, write_bench
from saq_qat_runtime.bench.run import bench_bundle
from saq_qat_runtime.errors import ModelError
from tests.report.networks import trained_run

QUICK = BenchSize(batches=(1, 3), seconds=0.05, warmup_seconds=0.0, accuracy_images=40)


@pytest.fixture(scope="module")
def found(exported: Path) -> tuple[Bench, Samples]:
    return bench_run(exported, exported / "export", QUICK)


def test_bundle_and_baselines_are_measured_in_one_run(found: tuple[Bench, Samples]) -> None:
    bench, samples = found
    assert bench.batches == (1, 3)
    names = [candidate.name for candidate in bench.candidates]
    assert {BUNDLE, FLOAT, STATIC_INT8, "fake-quant, PyTorch", "float32, PyTorch"} <= set(names)
    for batch in bench.batches:
        assert [t.candidate for t in bench.timings if t.batch == batch] == list(
            dict.fromkeys([*(n for n in names if "PyTorch" not in n), *(n for n in names if "PyTorch" in n)])
        )
        assert set(samples[batch]) == set(names)


def test_the_baseline_is_float32_and_ratios_are_taken_turn_by_turn(found: tuple[Bench, Samples]) -> None:
    bench, samples = found
    base = samples[1][FLOAT]
    timing = bench.timing(BUNDLE, 1)
    assert timing is not None
    turns = sorted(f / b for f, b in zip(base.samples, samples[1][BUNDLE].samples, strict=True))
    assert timing.over_float is not None
    assert turns[(len(turns) - 1) // 2] - 1e-6 <= timing.over_float.median <= turns[len(turns) // 2] + 1e-6
    assert timing.latency == samples[1][BUNDLE].summary()
    for name in (FLOAT, "float32, PyTorch"):
        against_itself = bench.timing(name, 3)
        assert against_itself is not None
        ratio = against_itself.over_float
        assert (ratio is None) == (against_itself.latency.count < ENOUGH_PAIRS)
        assert ratio is None or (ratio.median == 1.0) == (name == FLOAT)


def test_integers_are_counted_and_every_engine_is_judged_on_the_same_images(
    found: tuple[Bench, Samples],
) -> None:
    bench, _ = found
    counts = {c.name: (c.integer.integer, c.integer.total) for c in bench.candidates if c.integer}
    assert (counts[BUNDLE], counts[FLOAT], counts[STATIC_INT8]) == ((3, 3), (0, 3), (3, 3))
    assert bench.accuracy_images == 40
    accurate = [c.top1 for c in bench.candidates if c.integer is not None]
    assert all(top1 is not None and 0 <= top1 <= 100 and (top1 * 0.4) % 1 < 1e-9 for top1 in accurate)


def test_a_measurement_survives_the_disk(found: tuple[Bench, Samples], tmp_path: Path) -> None:
    bench, samples = found
    path = write_bench(bench, samples, tmp_path / "bench")
    assert read_bench(path) == bench
    raw = json.loads((tmp_path / "bench" / "samples.json").read_text())
    assert tuple(raw["nanoseconds"]["3"][BUNDLE]) == samples[3][BUNDLE].samples
    for name in ("checkpoint_sha256", "bundle_sha256", "created", "schema_version"):
        assert raw[name] == getattr(bench, name)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema_version": 1}', '{"schema_version": 3}', "\x00"])
def test_a_damaged_or_older_measurement_is_refused_with_the_command_that_makes_it_again(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(ModelError, match="Run 'saq-qat bench' again"):
        read_bench(path)


def test_a_measurement_bears_the_digests_of_its_checkpoint_and_bundle(
    exported: Path, found: tuple[Bench, Samples]
) -> None:
    bench, _ = found
    manifest = exported / "export" / "manifest.json"
    weights = exported / "checkpoints" / "best" / "model.safetensors"
    assert bench.bundle_sha256 == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert bench.checkpoint_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_a_bundle_of_a_checkpoint_that_is_gone_is_not_measured_beside_another_network(
    exported: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(exported, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ArtifactError, match=r"exported from checkpoint .* it has none .*saq-qat export"):
        bench_run(run, run / "export", QUICK)


def test_a_bundle_is_measured_without_its_run(exported: Path) -> None:
    bench, samples = bench_bundle(exported / "export", QUICK)
    assert bench.candidates[0].name == BUNDLE
    assert all(timing.over_float is None and timing.over_int8 is None for timing in bench.timings)
    assert bench.candidate(FLOAT) is None
    assert set(samples) == {1, 3}


def test_without_baselines_only_the_bundle_runs(exported: Path) -> None:
    bench, _ = bench_run(exported, exported / "export", QUICK, baselines=False)
    assert [candidate.name for candidate in bench.candidates] == [BUNDLE, "model.onnx, OpenVINO"]
    assert "whose codes OpenVINO need not keep" in bench.candidates[1].network


def test_a_run_without_a_bundle_is_told_to_export(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="saq-qat export"):
        bench_run(tmp_path, tmp_path / "export", QUICK)
    with pytest.raises(ModelError):
        bench_bundle(tmp_path, QUICK)


def test_a_run_in_full_precision_has_nothing_to_compare(tmp_path: Path) -> None:
    stage = "train.stages=[{kind: float, epochs: 1, lr: 0.05}]"
    run = trained_run(tmp_path / "float", "quant=null", stage)
    with pytest.raises(ArtifactError, match="full precision"):
        float_network(restore(run, "best"))
