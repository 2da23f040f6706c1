import gc
import threading
import time

import pytest

from saq_qat_runtime.errors import ClosedError, CudaError, RuntimeFault
from tests.runtime.engines import backend_of, check_logits
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import FakeTensorRt
from tests.runtime.networks import LABELS, SIDE, images


@pytest.fixture
def library() -> FakeTensorRt:
    return FakeTensorRt(FakeDevice())


def test_many_threads_share_a_few_streams(library: FakeTensorRt) -> None:
    backend = backend_of(library, streams=3)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for turn in range(20):
                check_logits(backend, 1 + (seed + turn) % 8, seed * 100 + turn)
        except BaseException as error:  # a thread's failure would be lost otherwise
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
    check_logits(backend, 1)
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
        check_logits(backend, count)
    assert library.device.live > 0
    backend.close()
    backend.close()
    assert library.device.live == 0
    with pytest.raises(ClosedError, match="Load it again"):
        backend.run({"image": images(1)})


def test_an_engine_that_nobody_closed_is_released_with_its_last_reference(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    check_logits(backend, 1)
    del backend
    gc.collect()
    assert library.device.live == 0


def test_a_forked_child_leaves_the_gpu_alone(library: FakeTensorRt, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(library)
    check_logits(backend, 1)
    held = library.device.live
    monkeypatch.setattr("saq_qat_runtime.tensorrt.stream_pool.os.getpid", lambda: -1)
    backend.close()
    assert library.device.live == held
