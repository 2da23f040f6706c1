"""The shadow sees a share of the requests, nobody waits for it, and what differs is counted and kept."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from saq_qat_runtime.errors import InputError, RuntimeFault
from saq_qat_runtime.serve.batcher import Answer, Floats
from saq_qat_runtime.serve.model import ModelPlace, ServedModel, load_model
from saq_qat_runtime.serve.settings import ServeSettings, ShadowSettings
from saq_qat_runtime.serve.shadow import Shadow
from saq_qat_runtime.session import Session
from tests.runtime.networks import images, quantized_network
from tests.runtime.serve.conftest import write_bundle
from tests.runtime.serve.engines import Remember


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with the last layer's codes negated: it prefers what the first likes least."""
    network = quantized_network()
    for constant in network.graph.initializer:
        if constant.name == "w3_codes":
            constant.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(constant), "w3_codes"))
    content: bytes = network.SerializeToString()
    assert content != quantized_network().SerializeToString()
    onnx.checker.check_model(network)
    return write_bundle(tmp_path_factory.mktemp("serve") / "other", content)


def wait_for(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


def load(folder: Path, observer: Remember, **shadow: object) -> ServedModel:
    settings = ServeSettings(threads=1, max_batch=2, shadow=ShadowSettings(**shadow))  # type: ignore[arg-type]  # of several types
    return load_model(ModelPlace.of_bundle(folder), settings, observer)


def ask(model: ServedModel, count: int = 1) -> Floats:
    return model.submit(images(count), time.monotonic() + 10).result(10).logits


def test_the_same_bundle_agrees_with_itself_in_every_bit(integer_bundle: Path) -> None:
    observer = Remember()
    model = load(integer_bundle, observer, backend="onnxruntime", share=1.0)
    ask(model, 2)
    wait_for(lambda: bool(observer.compared))
    assert observer.compared == [(2, 0, 0.0)]
    model.retire()


def test_another_bundle_is_compared_and_what_differs_is_kept_up_to_the_limit(
    integer_bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    observer = Remember()
    keep = tmp_path / "kept"
    model = load(integer_bundle, observer, bundle=other_bundle, share=1.0, keep_folder=keep, keep=2)
    with Session.load(other_bundle) as other:
        flips = int((other.run(images(2)).argmax(1) != model.session.run(images(2)).argmax(1)).sum())
    assert flips
    for _ in range(4):
        ask(model, 2)
    wait_for(lambda: len(observer.compared) == 4)
    assert [(count, flipped) for count, flipped, _ in observer.compared] == [(2, flips)] * 4
    assert all(difference > 0 for _, _, difference in observer.compared)
    model.retire()
    kept = sorted(keep.iterdir())
    assert len(kept) == 2
    with np.load(kept[0]) as found:
        assert len(found["inputs"]) == flips
        assert (found["primary_logits"].argmax(1) != found["shadow_logits"].argmax(1)).all()


def test_the_share_is_what_was_asked_for(integer_bundle: Path) -> None:
    observer = Remember()
    model = load(integer_bundle, observer, backend="onnxruntime", share=0.25)
    for _ in range(20):
        ask(model)
    wait_for(lambda: len(observer.compared) == 5)
    model.retire()
    assert len(observer.compared) == 5
    assert observer.dropped == 0


class Stuck:
    """A session that takes its time, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls = 0

    def run(self, batch: Floats) -> Floats:
        self.calls += 1
        if self.error is not None:
            raise self.error
        time.sleep(0.2)
        return np.zeros((len(batch), 5), np.float32)

    def close(self) -> None:
        pass


def answered() -> "Future[Answer]":
    future: Future[Answer] = Future()
    future.set_result(Answer(np.zeros((1, 5), np.float32), 0.0, 0.1, 1))
    return future


def test_a_shadow_that_is_busy_drops_requests_and_holds_nobody_up() -> None:
    observer = Remember()
    shadow = Shadow(Stuck(), ShadowSettings(backend="x", share=1.0), observer)  # type: ignore[arg-type]  # a stand-in
    start = time.monotonic()
    for _ in range(200):
        shadow.watch(images(1), answered())
    assert time.monotonic() - start < 1
    assert observer.dropped > 100
    shadow.close()


def test_a_shadow_that_fails_is_counted_and_goes_on() -> None:
    observer = Remember()
    session = Stuck(RuntimeFault("broken"))
    shadow = Shadow(session, ShadowSettings(backend="x", share=1.0), observer)  # type: ignore[arg-type]  # a stand-in
    for _ in range(3):
        shadow.watch(images(1), answered())
    wait_for(lambda: observer.failed == 3)
    shadow.close()


def test_requests_that_were_not_answered_are_not_compared() -> None:
    observer = Remember()
    session = Stuck()
    shadow = Shadow(session, ShadowSettings(backend="x", share=1.0), observer)  # type: ignore[arg-type]  # a stand-in
    failed: Future[Answer] = Future()
    failed.set_exception(InputError("no"))
    cancelled: Future[Answer] = Future()
    cancelled.cancel()
    shadow.watch(images(1), failed)
    shadow.watch(images(1), cancelled)
    shadow.close()
    assert session.calls == 0


def test_a_shadow_with_other_labels_is_refused(integer_bundle: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other")
    path = other / "manifest.json"
    path.write_text(path.read_text().replace('"ant"', '"ape"'))
    with pytest.raises(InputError, match="the labels"):
        load(integer_bundle, Remember(), bundle=other)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InputError):
        ShadowSettings(backend="onnxruntime", share=share)
