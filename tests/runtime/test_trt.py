import gc
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat_runtime.backend import Backend
from saq_qat_runtime.errors import (
    BackendUnavailable,
    ClosedError,
    CudaError,
    InputError,
    ModelError,
    RuntimeFault,
)
from saq_qat_runtime.trt import Machine, TensorRtBackend, _pieces
from saq_qat_runtime.trt_library import ENGINE_LIBRARIES
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import PLAN, DataType, FakeTensorRt, expected, record_of
from tests.runtime.networks import LABELS, SIDE, images

TENSORRT, LEAN, RTX = ENGINE_LIBRARIES


def machine_of(library: FakeTensorRt) -> Machine:
    return Machine(lambda: library.device, lambda _: library)


def backend_of(library: FakeTensorRt, streams: int = 4) -> TensorRtBackend:
    return TensorRtBackend(PLAN, record_of(), TENSORRT, machine=machine_of(library), streams=streams)


@pytest.fixture
def library() -> FakeTensorRt:
    return FakeTensorRt(FakeDevice())


def logits(backend: TensorRtBackend, count: int, seed: int = 0) -> None:
    """Run `count` images and compare with what the engine must give."""
    batch = images(count, seed)
    found = backend.run({"image": batch})["logits"]
    np.testing.assert_allclose(found, expected(batch), rtol=1e-4, atol=1e-4)


def test_implements_the_protocol(library: FakeTensorRt) -> None:
    backend: Backend = backend_of(library)
    assert (backend.name, backend.version) == ("tensorrt", "10.16.1.11")
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*backend.inputs, *backend.outputs)] == [
        ("image", "float32", ("N", 3, SIDE, SIDE)),
        ("logits", "float32", ("N", LABELS)),
    ]
    count = backend.integer_count()
    assert (count.integer, count.total) == (2, 3)
    assert count.by_op == {"Conv (float)": 1, "Conv (int8)": 1, "Gemm (int8)": 1}


@pytest.mark.parametrize("count", [1, 2, 8])
def test_gives_the_logits_of_the_engine(library: FakeTensorRt, count: int) -> None:
    backend = backend_of(library)
    for seed in range(4):
        logits(backend, count, seed)


def test_memory_layout_does_not_matter(library: FakeTensorRt) -> None:
    batch = np.asfortranarray(images(4))[::-1]
    found = backend_of(library).run({"image": batch})["logits"]
    np.testing.assert_allclose(found, expected(np.ascontiguousarray(batch)), rtol=1e-4, atol=1e-4)


def test_results_belong_to_the_caller_alone(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    first = backend.run({"image": images(2)})["logits"]
    kept = first.copy()
    backend.run({"image": images(2, seed=9)})
    np.testing.assert_array_equal(first, kept)
    assert first.flags.writeable and first.flags.owndata


def test_the_second_run_of_a_batch_size_is_captured_and_later_ones_replay_it(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    assert not backend.graph_captured
    captured = []
    for seed in range(3):
        logits(backend, 2, seed)
        captured.append((backend.graph_captured, library.device.launches))
    assert captured == [(False, 0), (True, 1), (True, 2)]


def test_graphs_of_several_batch_sizes_live_side_by_side(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    for seed in range(5):
        for count in (1, 3, 8):
            logits(backend, count, seed)
    assert len(library.contexts) == 3
    assert library.device.launches == 3 * 4


def test_contexts_are_few_and_a_recycled_one_captures_anew(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    for seed in range(3):
        for count in (1, 2, 3, 4, 5, 6):
            logits(backend, count, seed)
    assert len(library.contexts) == 4
    assert library.device.launches == 0
    for seed in range(3):
        logits(backend, 1, seed)
    assert library.device.launches == 2


@given(st.lists(st.integers(1, 8), max_size=40))
def test_any_order_of_batch_sizes_is_right(sizes: list[int]) -> None:
    device = FakeDevice()
    backend = backend_of(FakeTensorRt(device))
    for seed, count in enumerate(sizes):
        logits(backend, count, seed)
    backend.close()
    assert device.live == 0


def test_an_engine_that_cannot_be_captured_is_enqueued_plainly_and_says_so(library: FakeTensorRt) -> None:
    library.capturable = False
    backend = backend_of(library)
    for seed in range(3):
        logits(backend, 2, seed)
    assert not backend.graph_captured
    assert backend.capture_refusals == ("batch 2: cannot be captured.",)
    assert library.device.launches == 0


def test_a_gpu_that_refuses_to_record_is_no_fault() -> None:
    backend = backend_of(FakeTensorRt(FakeDevice(captures=False)))
    for seed in range(3):
        logits(backend, 2, seed)
    assert backend.capture_refusals == ("batch 2: It gave no reason.",)


def test_tensorrt_rtx_captures_no_dynamic_shapes(library: FakeTensorRt) -> None:
    record = record_of(flavour="tensorrt-rtx")
    for batch, launches in (((1, 8), 0), ((2, 2), 2)):
        library.batch = batch
        backend = TensorRtBackend(PLAN, record, RTX, machine=machine_of(library))
        for seed in range(3):
            logits(backend, 2, seed)
        assert library.device.launches == launches


@pytest.mark.parametrize("count", [9, 16, 17, 31])
def test_batches_beyond_the_profile_are_run_in_pieces(library: FakeTensorRt, count: int) -> None:
    logits(backend_of(library), count)


@given(st.integers(1, 200), st.integers(1, 12), st.integers(0, 12))
def test_pieces_cover_a_batch_within_the_profile_or_are_refused(batch: int, minimum: int, more: int) -> None:
    maximum = minimum + more
    try:
        pieces = _pieces(batch, minimum, maximum)
    except InputError:
        assert 0 < batch % maximum < minimum
        return
    sizes = [piece.stop - piece.start for piece in pieces]
    assert np.concatenate([np.arange(batch)[piece] for piece in pieces]).tolist() == list(range(batch))
    assert all(minimum <= size <= maximum for size in sizes)


def test_a_batch_below_the_profile_is_the_callers_error_and_harms_nothing(library: FakeTensorRt) -> None:
    library.batch = (4, 8)
    backend = backend_of(library)
    for count in (3, 9):
        with pytest.raises(InputError, match=rf"4 to 8 inputs at once; {count} cannot be cut.*minimum 1"):
            backend.run({"image": images(count)})
    logits(backend, 12)


@pytest.mark.parametrize(
    ("feeds", "complaint"),
    [
        ({}, r"takes \['image'\], got \[\]"),
        ({"image": images(1), "other": images(1)}, r"got \['image', 'other'\]"),
        ({"image": images(1).astype(np.float64)}, "got float64"),
        ({"image": images(1)[:, :2]}, r"must be float32 .*, got float32 \(1, 2, 8, 8\)"),
        ({"image": np.array(1, np.float32)}, r"got float32 \(\)"),
        ({"image": images(0)}, "0 cannot be cut"),
    ],
)
def test_refuses_wrong_feeds(library: FakeTensorRt, feeds: dict[str, Any], complaint: str) -> None:
    backend = backend_of(library)
    with pytest.raises(InputError, match=complaint):
        backend.run({name: np.asarray(array) for name, array in feeds.items()})
    logits(backend, 1)


def test_many_threads_share_a_few_streams(library: FakeTensorRt) -> None:
    backend = backend_of(library, streams=3)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for turn in range(20):
                logits(backend, 1 + (seed + turn) % 8, seed * 100 + turn)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not failures
    assert 1 <= len(backend._pool.streams) <= 3
    backend.close()
    assert library.device.live == 0


def test_streams_are_made_on_demand_and_no_more_than_asked_for(library: FakeTensorRt) -> None:
    backend = backend_of(library, streams=2)
    assert library.device.live == 0
    batch = {"image": images(1)}
    with backend.lend(batch) as first, backend.lend(batch) as second:
        assert first is not second
        waiter = threading.Thread(target=backend.run, args=(batch,))
        waiter.start()
        time.sleep(0.05)
        assert waiter.is_alive()
    waiter.join(timeout=10)
    assert not waiter.is_alive()
    assert len(backend._pool.streams) == 2


def test_short_memory_means_fewer_streams_and_none_at_all_is_a_fault() -> None:
    needed = 8 * (3 * SIDE * SIDE + LABELS) * 4 + 1024
    library = FakeTensorRt(FakeDevice(memory=needed + 2000))
    backend = backend_of(library, streams=4)
    batch = {"image": images(1)}
    with backend.lend(batch) as stream:
        waiter = threading.Thread(target=backend.run, args=(batch,))
        waiter.start()
        time.sleep(0.05)
        assert waiter.is_alive()
        assert backend._pool.streams == (stream,)
    waiter.join(timeout=10)
    backend.close()
    assert library.device.live == 0
    with pytest.raises(CudaError, match=r"cudaMalloc failed: cudaErrorMemoryAllocation. Free GPU memory"):
        backend_of(FakeTensorRt(FakeDevice(memory=2000))).run(batch)


def test_a_kernel_that_fails_is_a_fault_of_the_gpu_and_closing_still_works(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    logits(backend, 1)
    library.kernel_error = "cudaErrorIllegalAddress"
    with pytest.raises(RuntimeFault, match=r"cudaStreamSynchronize failed: cudaErrorIllegalAddress. Restart"):
        backend.run({"image": images(1)})
    backend.close()
    backend.close()


def test_an_enqueue_that_fails_is_a_fault_in_tensorrts_words(library: FakeTensorRt) -> None:
    library.executes = False
    with pytest.raises(RuntimeFault, match=r"could not enqueue a batch of 1: Error Code 1: enqueueV3 failed"):
        backend_of(library).run({"image": images(1)})


def test_closing_releases_everything_and_later_use_is_refused(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    for count in (1, 2, 1, 2):
        logits(backend, count)
    assert library.device.live > 0
    backend.close()
    backend.close()
    assert library.device.live == 0
    with pytest.raises(ClosedError, match="Load it again"):
        backend.run({"image": images(1)})


def test_an_engine_that_nobody_closed_is_released_with_its_last_reference(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    logits(backend, 1)
    del backend
    gc.collect()
    assert library.device.live == 0


def test_a_forked_child_leaves_the_gpu_alone(library: FakeTensorRt, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(library)
    logits(backend, 1)
    held = library.device.live
    monkeypatch.setattr("saq_qat_runtime.stream_pool.os.getpid", lambda: -1)
    backend.close()
    assert library.device.live == held


class Untouchable:
    """Stands for TensorRT on a machine where calling it would end the process."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"touched {name}")


def no_device() -> FakeDevice:
    raise BackendUnavailable("TensorRT engines need a GPU. There is no CUDA driver.")


@pytest.mark.parametrize("library", ENGINE_LIBRARIES, ids=lambda library: library.backend)
def test_without_a_driver_no_library_is_touched_or_even_imported(library: Any) -> None:
    record = record_of(flavour=library.flavour, version_compatible=library.only_version_compatible)

    def imported(_: object) -> Any:
        raise AssertionError("imported")

    with pytest.raises(BackendUnavailable, match="no CUDA driver"):
        TensorRtBackend(PLAN, record, library, machine=Machine(no_device, imported))


@pytest.mark.parametrize(
    ("content", "changes", "version", "error", "complaint"),
    [
        (PLAN + b"!", {}, "10.16.1.11", ModelError, r"model.plan was changed after it was built"),
        (PLAN[:-1] + b"?", {}, "10.16.1.11", ModelError, r"was changed.*saq-qat build"),
        (
            PLAN,
            {},
            "10.16.1.12",
            BackendUnavailable,
            r"needs exactly this version; installed is tensorrt 10.16.1.12",
        ),
        (
            PLAN,
            {"gpu": "NVIDIA A100"},
            "10.16.1.11",
            BackendUnavailable,
            r"the GPU NVIDIA A100; here is NVIDIA H100",
        ),
        (PLAN, {"flavour": "tensorrt-rtx"}, "10.16.1.11", BackendUnavailable, r"an engine for tensorrt-rtx"),
    ],
)
def test_an_engine_that_does_not_belong_here_is_never_deserialized(
    library: FakeTensorRt,
    content: bytes,
    changes: dict[str, Any],
    version: str,
    error: type[Exception],
    complaint: str,
) -> None:
    library.__version__ = version
    with pytest.raises(error, match=complaint):
        TensorRtBackend(content, record_of(**changes), TENSORRT, machine=machine_of(library))
    assert library.runtimes == []


def test_the_lean_runtime_takes_version_compatible_engines_only(library: FakeTensorRt) -> None:
    with pytest.raises(
        BackendUnavailable, match=r"tensorrt-lean runs version-compatible engines only.*recipe"
    ):
        TensorRtBackend(PLAN, record_of(), LEAN, machine=machine_of(library))
    assert library.runtimes == []
    backend = TensorRtBackend(PLAN, record_of(version_compatible=True), LEAN, machine=machine_of(library))
    logits(backend, 3)
    assert backend.name == "tensorrt-lean"


@pytest.mark.parametrize("compatible", [True, False])
def test_an_engine_brings_host_code_along_only_where_it_must(library: FakeTensorRt, compatible: bool) -> None:
    record = record_of(version_compatible=compatible)
    TensorRtBackend(PLAN, record, TENSORRT, machine=machine_of(library))
    (runtime,) = library.runtimes
    assert runtime.engine_host_code_allowed is compatible
    assert runtime.content == PLAN


def test_an_engine_the_library_refuses_is_unavailable_in_the_librarys_words(library: FakeTensorRt) -> None:
    library.deserializes = False
    with pytest.raises(
        BackendUnavailable, match=r"refused model.plan: .*Code 6: magic tag does not match\. Build"
    ):
        backend_of(library)


def test_a_library_that_does_not_start_is_unavailable(library: FakeTensorRt) -> None:
    def fail(logger: object) -> None:
        raise TypeError("factory function returned nullptr")

    library.Runtime = fail
    with pytest.raises(BackendUnavailable, match=r"tensorrt cannot start: .*nullptr"):
        backend_of(library)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dtype": DataType.HALF}, "image is float16; this runtime exchanges float32 only"),
        ({"dtype": DataType.BF16}, "image is bfloat16"),
        ({"dtype": DataType.FP4}, "image is float4_e2m1fn"),
        ({"image_shape": (-1, 3, -1, SIDE)}, r"only the batch may be dynamic"),
        ({"profiles": 2}, "2 optimization profiles, this runtime uses one"),
    ],
)
def test_an_engine_with_another_interface_is_a_model_error(
    library: FakeTensorRt, changes: dict[str, Any], complaint: str
) -> None:
    vars(library).update(changes)
    with pytest.raises(ModelError, match=complaint):
        backend_of(library)


def test_an_engine_of_one_fixed_batch_runs_that_batch(library: FakeTensorRt) -> None:
    library.image_shape, library.batch = (4, 3, SIDE, SIDE), (4, 4)
    backend = backend_of(library)
    assert backend.inputs[0].shape == (4, 3, SIDE, SIDE)
    logits(backend, 8)
    with pytest.raises(InputError, match="4 to 4 inputs"):
        backend.run({"image": images(3)})


def test_the_record_is_not_what_is_run(library: FakeTensorRt) -> None:
    """Shapes come from the engine: a record edited by hand cannot make buffers too small."""
    wrong = replace(record_of(), profiles=())
    logits(TensorRtBackend(PLAN, wrong, TENSORRT, machine=machine_of(library)), 8)
