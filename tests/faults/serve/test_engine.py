"""An engine that fails amid a batch: everybody in it is told, and what comes after is computed."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saq_qat_runtime.errors import RuntimeFault
from saq_qat_runtime.serve.batcher import Batcher, Floats
from saq_qat_runtime.serve.settings import ServeSettings
from saq_qat_runtime.session import Session
from tests.faults.serve.hostile import Target
from tests.runtime.networks import images
from tests.runtime.serve.client import Address, Reply, binary_request
from tests.runtime.serve.conftest import Start
from tests.runtime.serve.engines import Remember, SlowEngine, image

Fail = Callable[[Exception], list[Reply]]


@pytest.fixture(scope="module")
def batching(start_once: Start, integer_bundle: Path) -> Address:
    """A server that waits half a second for batches of four."""
    return start_once(
        integer_bundle, ServeSettings(threads=1, drain_seconds=0.0, max_batch=4, batch_delay=0.5)
    )


@pytest.fixture
def fail(batching: Address) -> Iterator[Fail]:
    """Four requests in one batch, on which the engine raises; what each client heard."""
    batcher = batching.serving.catalogue.find("tiny")._batcher
    run = batcher._run

    def ask(error: Exception) -> list[Reply]:
        sizes: list[int] = []

        def broken(batch: Floats) -> Floats:
            sizes.append(len(batch))
            raise error

        batcher._run = broken
        heard: list[Reply] = []
        body, length = binary_request(images(1))
        clients = [
            threading.Thread(target=lambda: heard.append(batching.infer(body, length))) for _ in range(4)
        ]
        for each in clients:
            each.start()
        for each in clients:
            each.join(30)
        batcher._run = run
        assert max(sizes) > 1
        return heard

    yield ask
    batcher._run = run


def check_right(address: Address, session: Session) -> None:
    reply = address.infer(*binary_request(images(2)))
    assert reply.status == 200
    assert reply.body.endswith(session.run(images(2)).tobytes())


@pytest.mark.parametrize(
    "error",
    [ValueError("wrong"), MemoryError(), RuntimeFault("gone"), OSError(5, "I/O error")],
    ids=["ValueError", "MemoryError", "RuntimeFault", "OSError"],
)
def test_all_of_the_batch_hear_why_and_the_next_batch_is_right(
    batching: Address, integer_session: Session, fail: Fail, error: Exception
) -> None:
    status = 503 if isinstance(error, RuntimeFault) else 500
    heard = fail(error)
    assert [reply.status for reply in heard] == [status] * 4
    assert all(set(reply.json) == {"error"} and "Traceback" not in reply.json["error"] for reply in heard)
    check_right(batching, integer_session)
    assert batching.ask("GET", "/v2/health/live").status == 200


def test_a_fault_that_stays_ends_health_and_nothing_hangs(
    start: Start, integer_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = start(integer_bundle)
    session = address.serving.catalogue.find("tiny").session

    def broken(_inputs: object) -> None:
        raise RuntimeFault("the device is lost")

    monkeypatch.setattr(session._backend, "run", broken)
    for _ in range(3):
        reply = address.infer(*binary_request(images(1)))
        assert reply.status == 503
        assert "the device is lost" in reply.json["error"]
    assert address.ask("GET", "/v2/health/live").status == 503
    assert address.ask("GET", "/v2/health/ready").status == 503
    assert address.ask("GET", "/v2/models/tiny/ready").status == 503


def test_a_metric_that_fails_costs_nobody_an_answer() -> None:
    class Broken(Remember):
        def batch_done(self, *_: object) -> None:
            raise OSError("no space")

    batcher = Batcher(SlowEngine(), max_batch=2, join=True, delay=0.0, limit=9, observer=Broken())
    for value in (1.0, 2.0):
        answer = batcher.submit(image(value), time.monotonic() + 10).result(10)
        assert answer.logits.tolist() == [[2 * value]]
    assert batcher.alive
    batcher.close()
    assert not batcher.alive


# What ends the thread is no Exception, and is meant to end it here.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_without_its_thread_of_batches_a_model_is_not_healthy(start: Start, integer_bundle: Path) -> None:
    address = start(integer_bundle, ServeSettings(threads=1, drain_seconds=0.0))
    batcher = address.serving.catalogue.find("tiny")._batcher

    def leave(_batch: Floats) -> Floats:
        raise GeneratorExit

    batcher._run = leave
    with address.connect() as connection:
        connection.sendall(Target(address, "tiny", *binary_request(images(1))).request())
        batcher._thread.join(10)
    assert address.ask("GET", "/v2/health/live").status == 503
