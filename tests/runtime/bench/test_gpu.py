from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from saq_qat_runtime.bench.gpu import GpuLatency, TimedRun, gpu_cautions, interleave_gpu, measure_gpu
from saq_qat_runtime.bench.interleave import Latency, compare
from saq_qat_runtime.errors import CudaError, InputError
from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.tensorrt.backend import Machine, TensorRtBackend
from saq_qat_runtime.tensorrt.library import ENGINE_LIBRARIES
from saq_qat_runtime.tensorrt.stream import EngineStream
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import PLAN, FakeTensorRt, expected, record_of
from tests.runtime.networks import images

COPY = 2_000
Lend = Callable[..., TimedRun]


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def lend(device: FakeDevice) -> Iterator[Lend]:
    """Engines on one device that take some time on it, each with a batch in a stream of its own."""
    with ExitStack() as stack:

        def make(nanoseconds: int, *, enqueue: int = 40_000, capturable: bool = True) -> TimedRun:
            library = FakeTensorRt(device)
            library.nanoseconds, library.enqueue_nanoseconds = nanoseconds, enqueue
            library.capturable = capturable
            machine = Machine(lambda: device, lambda _: library)
            backend = TensorRtBackend(PLAN, record_of(), ENGINE_LIBRARIES[0], machine=machine)
            stack.callback(backend.close)
            return stack.enter_context(backend.lend({"image": images(2)}))

        yield make


def clock_of(device: FakeDevice) -> Callable[[], int]:
    return lambda: device.host_now


def test_events_time_computation_and_copies_and_the_host_times_itself(device: FakeDevice, lend: Lend) -> None:
    latency = measure_gpu(lend(100_000), iterations=25, clock=clock_of(device))
    assert latency.compute.samples == (100_000,) * 25
    assert latency.upload is not None and latency.upload.samples == (COPY,) * 25
    assert latency.download is not None and latency.download.samples == (COPY,) * 25
    assert latency.total.samples == (100_000 + 2 * COPY,) * 25
    assert latency.enqueue.samples == (5_000,) * 25
    assert latency.graph


def test_copies_can_be_left_out(device: FakeDevice, lend: Lend) -> None:
    latency = measure_gpu(lend(100_000), transfers=False, iterations=25, clock=clock_of(device))
    assert (latency.upload, latency.download) == (None, None)
    assert latency.total is latency.compute
    assert latency.compute.samples == (100_000,) * 25


def test_without_copies_the_batch_is_there_all_the_same(device: FakeDevice, lend: Lend) -> None:
    stream = lend(100_000)
    measure_gpu(stream, transfers=False, iterations=1, clock=clock_of(device))
    stream.download()
    device.synchronize(stream.stream)
    assert isinstance(stream, EngineStream)
    np.testing.assert_allclose(stream._outputs[0].values[:2], expected(images(2)), rtol=1e-4, atol=1e-4)


def test_without_a_graph_the_host_enqueues_each_time(device: FakeDevice, lend: Lend) -> None:
    latency = measure_gpu(lend(100_000, capturable=False), iterations=20, clock=clock_of(device))
    assert not latency.graph
    assert latency.enqueue.samples == (40_000,) * 20
    assert latency.compute.samples == (100_000,) * 20


def test_a_host_that_is_slower_than_the_gpu_is_noticed(device: FakeDevice, lend: Lend) -> None:
    latency = measure_gpu(
        lend(30_000, enqueue=90_000, capturable=False), iterations=200, clock=clock_of(device)
    )
    (host, _) = gpu_cautions(latency)
    assert host.startswith("bound by the host: enqueuing (without a CUDA graph) takes ")


def test_warm_up_lasts_at_least_its_time_and_is_not_counted(device: FakeDevice, lend: Lend) -> None:
    measure_gpu(lend(1_000_000), warmup_seconds=0.2, iterations=1, clock=clock_of(device))
    assert 200_000_000 <= device.host_now <= 230_000_000


def test_measures_for_a_time_and_at_least_ten_runs(device: FakeDevice, lend: Lend) -> None:
    clock = clock_of(device)
    latency = measure_gpu(lend(1_000_000), warmup_seconds=0, seconds=0.1, clock=clock)
    assert 90 <= len(latency.compute.samples) <= 100
    assert len(measure_gpu(lend(1_000_000), warmup_seconds=0, seconds=0.0, clock=clock).compute.samples) == 10


@pytest.mark.parametrize("extent", [{}, {"iterations": 5, "seconds": 1.0}, {"iterations": 0}])
def test_a_measurement_needs_one_extent(lend: Lend, extent: dict[str, float]) -> None:
    with pytest.raises(InputError, match="Give iterations"):
        measure_gpu(lend(1), **extent)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one engine"):
        interleave_gpu({}, iterations=1)


def test_engines_take_turns_and_never_run_at_the_same_time(device: FakeDevice, lend: Lend) -> None:
    engines = {"float32": lend(300_000), "float16": lend(150_000), "int8": lend(100_000)}
    latencies = interleave_gpu(engines, iterations=15, clock=clock_of(device))
    assert {name: latency.compute.samples for name, latency in latencies.items()} == {
        "float32": (300_000,) * 15,
        "float16": (150_000,) * 15,
        "int8": (100_000,) * 15,
    }
    comparison = compare({name: latency.compute for name, latency in latencies.items()}, "float32")
    assert comparison.speedups == {"float32": 1.0, "float16": 2.0, "int8": 3.0}


def test_events_are_given_back_even_after_a_fault(device: FakeDevice, lend: Lend) -> None:
    run = lend(1000)
    before = len(device._events)
    measure_gpu(run, iterations=1, clock=clock_of(device))
    assert len(device._events) == before
    device.sticky = "cudaErrorLaunchFailure"
    with pytest.raises(CudaError, match="cudaErrorLaunchFailure"):
        measure_gpu(run, iterations=1, clock=clock_of(device))
    assert len(device._events) == before
    device.sticky = None


def latency_of(compute: tuple[int, ...], enqueue: int = 10, graph: bool = True) -> GpuLatency:
    return GpuLatency(Latency(compute), Latency((enqueue,) * len(compute)), None, None, graph)


def test_steady_figures_with_locked_clocks_need_no_caution() -> None:
    assert gpu_cautions(latency_of((1000,) * 100), clocks_locked=True, integer=IntegerCount(3, 3, {})) == ()


@pytest.mark.parametrize(
    ("latency", "clocks", "integer", "caution"),
    [
        (latency_of((1000,) * 99), True, None, "only 99 samples"),
        (latency_of((1000, 1060) * 50), True, None, "coefficient of variation is 2.9%, above 2.5 %"),
        (latency_of((1000,) * 100, 801), True, None, "(replaying a CUDA graph) takes 80% of the computation"),
        (latency_of((1000,) * 100), None, None, "GPU clocks are not known to be locked"),
        (latency_of((1000,) * 100), False, None, "GPU clocks are not locked"),
        (
            latency_of((1000,) * 100),
            True,
            IntegerCount(2, 3, {}),
            "not to be called integer: partly integer (2/3",
        ),
    ],
)
def test_cautions_say_why_figures_should_not_be_quoted(
    latency: GpuLatency, clocks: bool | None, integer: IntegerCount | None, caution: str
) -> None:
    (found,) = gpu_cautions(latency, clocks_locked=clocks, integer=integer)
    assert caution in found


@pytest.mark.parametrize("count", [100, 999, 1000, 1001, 12_345])
def test_percentiles_are_those_of_trtexec(count: int) -> None:
    """Its index is count - 1 - floor((1 - p) * count), here without the rounding of floating point."""
    samples = Latency(tuple(range(count)))
    for per_mille in (900, 950, 990):
        found = samples.percentile(per_mille)
        assert found is None or found == max(count - 1 - (1000 - per_mille) * count // 1000, 0)


def test_the_coefficient_of_variation_is_the_deviation_relative_to_the_mean() -> None:
    assert Latency((90, 110)).variation == pytest.approx(0.1)
    assert Latency((5,)).variation == 0.0
