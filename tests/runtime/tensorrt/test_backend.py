from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat_runtime.backend import Backend
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.tensorrt.backend import TensorRtBackend, _pieces
from tests.runtime.engines import RTX, backend_of, check_logits, machine_of
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import PLAN, FakeTensorRt, expected, record_of
from tests.runtime.networks import LABELS, SIDE, images


@pytest.fixture
def library() -> FakeTensorRt:
    return FakeTensorRt(FakeDevice())


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
        check_logits(backend, count, seed)


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
        check_logits(backend, 2, seed)
        captured.append((backend.graph_captured, library.device.launches))
    assert captured == [(False, 0), (True, 1), (True, 2)]


def test_graphs_of_several_batch_sizes_live_side_by_side(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    for seed in range(5):
        for count in (1, 3, 8):
            check_logits(backend, count, seed)
    assert len(library.contexts) == 3
    assert library.device.launches == 3 * 4


def test_contexts_are_few_and_a_recycled_one_captures_anew(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    for seed in range(3):
        for count in (1, 2, 3, 4, 5, 6):
            check_logits(backend, count, seed)
    assert len(library.contexts) == 4
    assert library.device.launches == 0
    for seed in range(3):
        check_logits(backend, 1, seed)
    assert library.device.launches == 2


def test_the_batch_size_not_needed_for_longest_gives_way(library: FakeTensorRt) -> None:
    backend = backend_of(library)
    for count in (1, 1, 2, 3, 4, 1, 5):
        check_logits(backend, count)
    launches = library.device.launches
    check_logits(backend, 1)
    assert library.device.launches == launches + 1


@given(st.lists(st.integers(1, 8), max_size=40))
def test_any_order_of_batch_sizes_is_right(sizes: list[int]) -> None:
    device = FakeDevice()
    backend = backend_of(FakeTensorRt(device))
    for seed, count in enumerate(sizes):
        check_logits(backend, count, seed)
    backend.close()
    assert device.live == 0


def test_an_engine_that_cannot_be_captured_is_enqueued_plainly_and_says_so(library: FakeTensorRt) -> None:
    library.capturable = False
    backend = backend_of(library)
    for seed in range(3):
        check_logits(backend, 2, seed)
    assert not backend.graph_captured
    assert backend.capture_refusals == ("batch 2: cannot be captured.",)
    assert library.device.launches == 0


def test_a_gpu_that_refuses_to_record_is_no_fault() -> None:
    backend = backend_of(FakeTensorRt(FakeDevice(captures=False)))
    for seed in range(3):
        check_logits(backend, 2, seed)
    assert backend.capture_refusals == ("batch 2: It gave no reason.",)


def test_tensorrt_rtx_captures_no_dynamic_shapes(library: FakeTensorRt) -> None:
    record = record_of(flavour="tensorrt-rtx")
    for batch, launches in (((1, 8), 0), ((2, 2), 2)):
        library.batch = batch
        backend = TensorRtBackend(PLAN, record, RTX, machine=machine_of(library))
        for seed in range(3):
            check_logits(backend, 2, seed)
        assert library.device.launches == launches


@pytest.mark.parametrize("count", [9, 16, 17, 31])
def test_batches_beyond_the_profile_are_run_in_pieces(library: FakeTensorRt, count: int) -> None:
    check_logits(backend_of(library), count)


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
    check_logits(backend, 12)


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
    check_logits(backend, 1)
