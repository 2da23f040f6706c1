"""Engines on a GPU take turns with float ones of the same network; the GPU is a fake with its own clock."""

import dataclasses
import json
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import pytest
from torch import fx

from saq_qat.bench.baselines import float_onnx
from saq_qat.bench.gpu_engines import float_engines
from saq_qat.bench.run import bench_run
from saq_qat_export.proof.prove import ProofSize
from saq_qat_export.run import export_run
from saq_qat_runtime.bench.cpu import BenchSize
from saq_qat_runtime.bench.gpu_machine import describe_gpu, query_clocks, read_gpu_machine
from saq_qat_runtime.bench.gpu_runners import Form, GpuRunner, open_gpu_bundle
from saq_qat_runtime.bench.gpu_turns import measure_engines, too_large
from saq_qat_runtime.bench.paired import Ratio
from saq_qat_runtime.bench.record import BUNDLE, Bench, Candidate, read_bench, write_bench
from saq_qat_runtime.bench.run import bench_bundle
from saq_qat_runtime.bench.runners import Runner
from saq_qat_runtime.bundle.manifest import Manifest, bundle_sha256
from saq_qat_runtime.bundle.records import FileRecord
from saq_qat_runtime.errors import BackendUnavailable, EngineError, ModelError
from saq_qat_runtime.report.bench_text import bench_text, bench_warnings, speed_verdicts
from saq_qat_runtime.report.gpu_text import gpu_tables
from saq_qat_runtime.tensorrt.backend import Machine
from saq_qat_runtime.tensorrt.build.engine import BuiltEngine
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from saq_qat_runtime.tensorrt.driver import DriverStatus
from saq_qat_runtime.tensorrt.engine_record import EngineRecord
from tests.report.networks import Tiny, trained_run
from tests.runtime.engines import backend_of, machine_of
from tests.runtime.fake_cuda import H100, FakeDevice
from tests.runtime.fake_tensorrt import PLAN, FakeTensorRt, record_of
from tests.runtime.networks import images

QUICK = BenchSize(batches=(1, 3), seconds=0.05, warmup_seconds=0.0, accuracy_images=40)
WIDE = ("deploy.thresholds.max_top1_drop=100.0", "deploy.thresholds.max_flip_rate=1.0")
NAME = "bundle, TensorRT"
MODES = ("with", "without")


def without_gpu() -> Machine:
    def refuse() -> Any:
        raise BackendUnavailable("There is no CUDA driver.")

    return Machine(refuse)


@pytest.fixture
def gpu() -> FakeTensorRt:
    return fake_library(H100)


def fake_library(status: DriverStatus) -> FakeTensorRt:
    """With as many logits as there are digits."""
    library = FakeTensorRt(FakeDevice(status))
    library.labels = 10
    return library


def add_engine(bundle: Path, **changes: Any) -> EngineRecord:
    """An engine that the fake library runs, beside a bundle."""
    source = Manifest.load(bundle).models["tensorrt"]
    record = record_of(source=source, **changes)
    (bundle / record.file.name).write_bytes(PLAN)
    (bundle / f"{record.file.name}.json").write_text(record.to_json())
    return record


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for both targets, with an engine in its bundle; not to be changed."""
    run = trained_run(
        tmp_path_factory.mktemp("runs") / "both", *WIDE, "deploy.targets=[onnxruntime, tensorrt]"
    )
    export_run(run, run / "export", size=ProofSize(2, 40), allow_failed_gate=True)
    add_engine(run / "export")
    return run


@pytest.fixture(scope="module")
def gpu_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for TensorRT alone, with an engine; not to be changed."""
    run = trained_run(tmp_path_factory.mktemp("runs") / "gpu", *WIDE, "deploy.targets=[tensorrt]")
    export_run(run, run / "export", size=ProofSize(2, 40), allow_failed_gate=True)
    add_engine(run / "export")
    return run


def runner(form: Form, device: FakeDevice, nanoseconds: int) -> GpuRunner:
    """An engine that takes so long on the GPU."""
    library = FakeTensorRt(device)
    library.nanoseconds = nanoseconds
    backend = backend_of(library)
    candidate = Candidate(form, "fake", form, 1, backend.integer_count(), None)
    return GpuRunner(
        form, Runner(candidate, lambda batch: backend.run({"image": batch})["logits"]), backend, 8
    )


def test_times_are_those_of_the_gpu_with_and_without_copies() -> None:
    device = FakeDevice()
    runners = [runner("bundle", device, 50_000), runner("float32", device, 200_000)]
    runners.append(runner("float16", device, 100_000))
    timings, samples = measure_engines(runners, images(2), (1, 4), 0.02, lambda _: None)
    assert len(timings) == 2 * 2 * 3
    found = {(t.candidate, t.batch, t.transfers): t for t in timings}
    for batch in (1, 4):
        plain, copied = found["bundle", batch, False], found["bundle", batch, True]
        assert (plain.latency.median_ms, copied.latency.median_ms) == (0.05, 0.054)
        assert plain.images_per_second == pytest.approx(batch / 0.05e-3)
        assert plain.over_float32 is not None and plain.over_float32.median == 4.0
        assert plain.over_float16 is not None and plain.over_float16.median == 2.0
        assert plain.graph
    assert set(samples[4]) == {f"{e.name}, {mode} transfers" for e in runners for mode in ("with", "without")}


def test_only_the_quantized_engine_is_warned_of_float_layers() -> None:
    device = FakeDevice()
    runners = [runner("bundle", device, 50_000), runner("float32", device, 200_000)]
    timings, _ = measure_engines(runners, images(1), (1,), 0.02, lambda _: None)
    warned = {t.candidate for t in timings if any("not to be called integer" in c for c in t.cautions)}
    assert warned == {"bundle"}


def test_a_batch_that_engines_do_not_take_is_left_out_and_named() -> None:
    runners = [runner("bundle", FakeDevice(), 50_000)]
    timings, _ = measure_engines(runners, images(1), (4, 16), 0.02, lambda _: None)
    assert {timing.batch for timing in timings} == {4}
    (reason,) = too_large(runners, (4, 16))
    assert "batch 16" in reason and "8 at most" in reason and "saq-qat-runtime build" in reason


def test_a_bundle_is_measured_on_cpu_and_gpu_in_one_go(both: Path, gpu: FakeTensorRt, tmp_path: Path) -> None:
    bench, samples = bench_run(both, both / "export", QUICK, baselines=False, machine=machine_of(gpu))
    assert bench.timing(BUNDLE, 3) is not None
    assert bench.gpu is not None
    timing = bench.gpu.timing(NAME, 3, transfers=True)
    assert timing is not None and timing.latency.median_ms == pytest.approx(0.104)
    candidate = bench.candidate(NAME)
    assert candidate is not None and candidate.top1 is not None
    assert candidate.integer is not None and (candidate.integer.integer, candidate.integer.total) == (2, 3)
    assert bench.gpu.machine.name == H100.gpu
    path = write_bench(bench, samples, tmp_path / "bench")
    assert read_bench(path) == bench
    assert (
        f"{NAME}, with transfers"
        in json.loads((path.parent / "samples.json").read_text())["nanoseconds"]["3"]
    )


def test_without_a_gpu_the_cpu_is_measured_and_the_reason_kept(both: Path) -> None:
    bench, _ = bench_bundle(both / "export", QUICK, machine=without_gpu())
    assert bench.gpu is None and bench.timing(BUNDLE, 1) is not None
    assert any("There is no CUDA driver" in reason for reason in bench.not_run)
    assert "Did not take part" in bench_text(bench)


def test_an_engine_that_was_asked_for_is_not_replaced(both: Path, gpu: FakeTensorRt) -> None:
    with pytest.raises(BackendUnavailable, match="no CUDA driver"):
        bench_bundle(both / "export", QUICK, backend="tensorrt", machine=without_gpu())
    with pytest.raises(BackendUnavailable, match="saq-qat-runtime build"):
        bench_bundle(both / "export", QUICK, backend="tensorrt-rtx", machine=machine_of(gpu))
    bench, _ = bench_bundle(both / "export", QUICK, backend="tensorrt", machine=machine_of(gpu))
    assert bench.timings == () and bench.gpu is not None
    bench, _ = bench_bundle(both / "export", QUICK, backend="onnxruntime", machine=machine_of(gpu))
    assert bench.timings and bench.gpu is None and bench.not_run == ()


def test_a_bundle_for_tensorrt_alone_is_measured_where_it_runs_and_refused_in_words_elsewhere(
    gpu_only: Path, gpu: FakeTensorRt
) -> None:
    bench, _ = bench_run(gpu_only, gpu_only / "export", QUICK, baselines=False, machine=machine_of(gpu))
    assert bench.gpu is not None and bench.batches == ()
    assert bench.bundle_sha256 == bundle_sha256(gpu_only / "export")
    with pytest.raises(BackendUnavailable, match=r"for tensorrt only(.|\n)*no CUDA driver(.|\n)*onnxruntime"):
        bench_bundle(gpu_only / "export", QUICK, machine=without_gpu())
    with pytest.raises(ModelError, match="onnxruntime"):
        bench_bundle(gpu_only / "export", QUICK, backend="onnxruntime")


def test_an_engine_with_other_outputs_than_the_manifest_promises_is_refused(both: Path) -> None:
    with pytest.raises(ModelError, match="Build it again"):
        bench_bundle(both / "export", QUICK, machine=machine_of(FakeTensorRt(FakeDevice(H100))))


def test_a_bundle_without_an_engine_says_how_to_build_one(exported: Path, both: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(both / "export")
    found, reasons = open_gpu_bundle(tmp_path, manifest, "auto", without_gpu())
    assert found is None and "saq-qat-runtime build" in reasons[0]
    plain = Manifest.load(exported / "export")
    assert open_gpu_bundle(exported / "export", plain, "auto", without_gpu()) == (None, ())


class Builder:
    """Builds what the fake library runs, or refuses."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.built: dict[str, tuple[bytes, BuildOptions]] = {}

    def __call__(self, source: Path, options: BuildOptions) -> BuiltEngine:
        if options.precision == self.refuses:
            raise EngineError("the builder gave up")
        self.built[options.precision] = (source.read_bytes(), options)
        record = record_of(precision=options.precision, source=FileRecord(source.name, "0" * 64, 1))
        return BuiltEngine(PLAN, record, ())


@pytest.fixture(scope="module")
def float_model() -> bytes:
    return float_onnx(fx.symbolic_trace(Tiny(5)).eval(), (3, 8, 8))


def test_float_engines_are_built_as_the_bundles_was(
    both: Path, gpu: FakeTensorRt, float_model: bytes
) -> None:
    bundle, _ = open_gpu_bundle(both / "export", Manifest.load(both / "export"), "auto", machine_of(gpu))
    assert bundle is not None
    builder = Builder()
    runners, reasons = float_engines(float_model, bundle, builder)
    assert [e.name for e in runners] == ["float32, TensorRT", "float16, TensorRT"] and reasons == ()
    options = builder.built["float16"][1]
    assert (options.flavour, options.batch) == ("tensorrt", (1, 4, 8))
    assert (options.workspace_mib, options.optimization_level) == (1024, 3)
    plain, half = (onnx.load_from_string(builder.built[form][0]) for form in ("float32", "float16"))
    weights = {tensor.data_type for tensor in half.graph.initializer if len(tensor.dims) == 4}
    assert weights == {onnx.TensorProto.FLOAT16}
    for model in (plain, half):
        onnx.checker.check_model(model, full_check=True)
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    timings, _ = measure_engines([bundle.runner, *runners], images(1), (1,), 0.02, lambda _: None)
    assert all(t.over_float32 and t.over_float16 for t in timings)


def test_a_float_engine_that_cannot_be_built_is_missing_with_its_reason(
    both: Path, gpu: FakeTensorRt, float_model: bytes
) -> None:
    bundle, _ = open_gpu_bundle(both / "export", Manifest.load(both / "export"), "auto", machine_of(gpu))
    assert bundle is not None
    runners, reasons = float_engines(float_model, bundle, Builder(refuses="float16"))
    assert [e.form for e in runners] == ["float32"]
    assert reasons == ("float16 engine: the builder gave up",)


@pytest.fixture
def measured_on_gpu(both: Path, gpu: FakeTensorRt) -> Bench:
    bench, _ = bench_bundle(both / "export", QUICK, machine=machine_of(gpu))
    return bench


def test_the_text_names_gpu_driver_clocks_and_library(measured_on_gpu: Bench) -> None:
    text = " ".join(" ".join(bench_text(measured_on_gpu)).split())
    for part in ("NVIDIA H100 80GB HBM3", "driver 580.65.06", "clocks unknown", "tensorrt 10.16.1.11"):
        assert part in text
    assert "batch 1 on NVIDIA H100 80GB HBM3: 0.1 ms, float engines were not measured beside it" in text
    assert "partly integer (2/3 products" in text
    warnings = bench_warnings(measured_on_gpu)
    assert sum("clocks are not known to be locked" in warning for warning in warnings) == 1


def test_an_engine_slower_than_float16_is_called_slow(measured_on_gpu: Bench) -> None:
    assert measured_on_gpu.gpu is not None
    timings = [
        dataclasses.replace(t, over_float16=Ratio(0.5, 0.4, 0.6), over_float32=Ratio(2.0, None, None))
        for t in measured_on_gpu.gpu.timings
    ]
    gpu = dataclasses.replace(measured_on_gpu.gpu, timings=tuple(timings))
    lines = [line for line in speed_verdicts(dataclasses.replace(measured_on_gpu, gpu=gpu)) if "H100" in line]
    assert all(
        "SLOWER than float16: 0.50x its speed (95 % interval 0.40x to 0.60x)" in line for line in lines
    )
    assert all("2.00x the speed of float32" in line for line in lines)
    assert "0.50x" in "\n".join(gpu_tables(gpu))


def test_an_engine_that_computes_something_else_is_warned_of(measured_on_gpu: Bench) -> None:
    gpu = measured_on_gpu.gpu
    assert gpu is not None and gpu.golden_difference > gpu.golden_tolerance, "the fake is no such network"
    assert any("golden logits differ by" in warning for warning in bench_warnings(measured_on_gpu))
    right = dataclasses.replace(gpu, golden_difference=gpu.golden_tolerance)
    warnings = bench_warnings(dataclasses.replace(measured_on_gpu, gpu=right))
    assert not any("golden logits" in warning for warning in warnings)


SMI = "NVIDIA H100 80GB HBM3, 1980, 1980, 2619, 41, 312.50, 700.00\n"


def answer(text: str, code: int = 0) -> Any:
    return lambda *_, **__: subprocess.CompletedProcess([], code, text, "")


def test_clocks_are_those_of_the_gpu_with_that_name() -> None:
    clocks = query_clocks(str(H100.gpu), answer("NVIDIA T400, 1, 2, 3, 4, [N/A], [N/A]\n" + SMI))
    assert clocks is not None
    assert (clocks.sm_mhz, clocks.largest_sm_mhz, clocks.celsius, clocks.watts) == (1980, 1980, 41, 312.5)
    (_, line) = describe_gpu(dataclasses.replace(read_gpu_machine(H100), clocks=clocks))
    assert line == "clocks: SM 1980 of 1980 MHz, memory 2619 MHz, 41 C, 312 of 700 W"


@pytest.mark.parametrize(
    ("text", "code"), [("", 0), (SMI, 9), (SMI * 2, 0), ("NVIDIA H100 80GB HBM3, 1\n", 0), ("no devices", 6)]
)
def test_clocks_are_unknown_rather_than_guessed(text: str, code: int) -> None:
    assert query_clocks(str(H100.gpu), answer(text, code)) is None


def test_without_nvidia_smi_clocks_are_unknown() -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("nvidia-smi")

    assert query_clocks("any", missing) is None


def test_what_nvidia_smi_does_not_know_is_unknown_alone() -> None:
    clocks = query_clocks("A", answer("A, 100, [N/A], 3, 4, [Not Supported], 6\n"))
    assert clocks is not None and (clocks.sm_mhz, clocks.largest_sm_mhz, clocks.watts) == (100, None, None)


def test_float_engines_are_really_built_with_tensorrt_rtx(both: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
    library = fake_library(dataclasses.replace(H100, compute_capability="8.9"))
    library.__version__ = metadata.version("tensorrt-rtx")
    run = Path(shutil.copytree(both, tmp_path / "run"))
    (run / "export" / "model.plan").unlink()
    add_engine(
        run / "export",
        flavour="tensorrt-rtx",
        version=library.__version__,
        compute_capabilities=("8.9",),
        file=FileRecord("model.rtx.plan", record_of().file.sha256, len(PLAN)),
    )
    bench, _ = bench_run(run, run / "export", QUICK, backend="tensorrt-rtx", machine=machine_of(library))
    names = [candidate.name for candidate in bench.candidates]
    assert names == [f"{form}, TensorRT-RTX" for form in ("bundle", "float32", "float16")]
    assert bench.not_run == ()
    counts = [c.integer.integer for c in bench.candidates if c.integer is not None]
    assert counts == [2, 0, 0]
    assert bench.gpu is not None and all(t.over_float16 for t in bench.gpu.timings)
