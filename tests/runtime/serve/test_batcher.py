"""Requests that arrive together run together, each gets its own answer, and none harms another."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat_runtime.errors import ClosedError, InputError, RuntimeFault
from saq_qat_runtime.serve.batcher import Batcher, Floats
from saq_qat_runtime.serve.refusals import DeadlineError, OverloadError
from tests.runtime.serve.engines import Remember, SlowEngine, image

Build = Callable[..., Batcher]
SOON = 20.0


@pytest.fixture
def build() -> Iterator[Build]:
    made: list[Batcher] = []

    def build(run: Callable[[Floats], Floats], **changed: object) -> Batcher:
        options = {
            "max_batch": 4,
            "join": True,
            "delay": 0.0,
            "limit": 100,
            "observer": Remember(),
            **changed,
        }
        made.append(Batcher(run, **options))  # type: ignore[arg-type]  # options of several types
        return made[-1]

    yield build
    for batcher in made:
        batcher.close()


def later(seconds: float = SOON) -> float:
    return time.monotonic() + seconds


def test_requests_that_wait_run_in_one_batch_and_get_their_own_answers(build: Build) -> None:
    engine = SlowEngine(open_gate=False)
    batcher = build(engine)
    first = batcher.submit(image(1), later())
    while batcher.waiting:
        time.sleep(0.001)
    futures = [batcher.submit(image(value), later()) for value in (2, 3, 4, 5)]
    engine.gate.set()
    assert [future.result(SOON).logits.tolist() for future in (first, *futures)] == [
        [[2.0 * value]] for value in (1, 2, 3, 4, 5)
    ]
    assert engine.batches == [1, 4]
    assert futures[0].result().batch_size == 4
    assert futures[0].result().queue_seconds > 0


def test_with_a_delay_the_first_request_waits_until_the_batch_is_full(build: Build) -> None:
    engine = SlowEngine()
    batcher = build(engine, delay=SOON)
    futures = [batcher.submit(image(value, 2), later()) for value in (1, 2)]
    assert [future.result(SOON).batch_size for future in futures] == [4, 4]


def test_the_delay_ends(build: Build) -> None:
    engine = SlowEngine()
    start = time.monotonic()
    answer = build(engine, delay=0.05).submit(image(1), later()).result(SOON)
    assert answer.batch_size == 1
    assert 0.05 <= time.monotonic() - start < SOON


def test_where_images_may_not_be_joined_each_request_runs_alone(build: Build) -> None:
    engine = SlowEngine(open_gate=False)
    batcher = build(engine, join=False, delay=SOON)
    futures = [batcher.submit(image(value), later()) for value in (1, 2, 3)]
    engine.gate.set()
    for future in futures:
        future.result(SOON)
    assert engine.batches == [1, 1, 1]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=20))
def test_whatever_the_sizes_every_image_is_answered_once_within_the_largest_batch(sizes: list[int]) -> None:
    engine, observer = SlowEngine(open_gate=False), Remember()
    batcher = Batcher(engine, max_batch=4, join=True, delay=0.0, limit=100, observer=observer)
    futures = [batcher.submit(image(place, size), later()) for place, size in enumerate(sizes)]
    engine.gate.set()
    batcher.close()
    for place, (size, future) in enumerate(zip(sizes, futures, strict=True)):
        assert future.result(0).logits.tolist() == [[2.0 * place]] * size
    assert max(engine.batches) <= 4
    assert sum(engine.batches) == sum(sizes)
    assert observer.batches == engine.batches


def test_a_request_that_cannot_be_computed_fails_alone(build: Build) -> None:
    engine = SlowEngine(open_gate=False)
    batcher = build(engine)
    batcher.submit(image(0), later())
    while batcher.waiting:
        time.sleep(0.001)
    good, bad, other = (batcher.submit(image(value), later()) for value in (1, -1, 2))
    engine.gate.set()
    assert good.result(SOON).logits.tolist() == [[2.0]]
    assert other.result(SOON).logits.tolist() == [[4.0]]
    with pytest.raises(InputError, match="-1"):
        bad.result(SOON)


def test_a_fault_of_the_engine_reaches_every_request_of_the_batch(build: Build) -> None:
    def break_down(_images: Floats) -> Floats:
        raise RuntimeFault("broken")

    with pytest.raises(RuntimeFault, match="broken"):
        build(break_down).submit(image(1), later()).result(SOON)


def test_a_full_queue_refuses_and_says_when_to_come_again(build: Build) -> None:
    engine = SlowEngine(open_gate=False)
    batcher = build(engine, limit=2)
    batcher.submit(image(0), later())
    while batcher.waiting:
        time.sleep(0.001)
    kept = [batcher.submit(image(value), later()) for value in (1, 2)]
    with pytest.raises(OverloadError) as refused:
        batcher.submit(image(3), later())
    assert refused.value.retry_after is not None
    assert refused.value.retry_after >= 1
    engine.gate.set()
    assert [future.result(SOON).logits[0, 0] for future in kept] == [2.0, 4.0]


def test_a_request_past_its_deadline_is_refused_and_never_computed(build: Build) -> None:
    engine = SlowEngine(open_gate=False)
    batcher = build(engine)
    batcher.submit(image(0), later())
    while batcher.waiting:
        time.sleep(0.001)
    late, kept = batcher.submit(image(7), later(0.0)), batcher.submit(image(8), later())
    engine.gate.set()
    with pytest.raises(DeadlineError):
        late.result(SOON)
    kept.result(SOON)
    assert 7.0 not in engine.seen


def test_a_cancelled_request_is_never_computed(build: Build) -> None:
    engine = SlowEngine(open_gate=False)
    batcher = build(engine)
    batcher.submit(image(0), later())
    while batcher.waiting:
        time.sleep(0.001)
    left, kept = batcher.submit(image(7), later()), batcher.submit(image(8), later())
    assert left.cancel()
    engine.gate.set()
    kept.result(SOON)
    assert 7.0 not in engine.seen


def test_closing_answers_what_waits_and_refuses_what_comes(build: Build) -> None:
    engine = SlowEngine(0.01)
    batcher = build(engine, delay=SOON)
    futures = [batcher.submit(image(value), later()) for value in range(10)]
    batcher.close()
    assert [future.result(0).logits[0, 0] for future in futures] == [2.0 * value for value in range(10)]
    with pytest.raises(ClosedError):
        batcher.submit(image(1), later())


def test_a_request_larger_than_a_batch_is_refused(build: Build) -> None:
    with pytest.raises(InputError, match="may hold 4 images, got 5"):
        build(SlowEngine()).submit(np.zeros((5, 1, 1, 1), np.float32), later())
