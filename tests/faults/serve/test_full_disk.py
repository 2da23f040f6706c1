"""A disk that fills up under a shadow: flips are counted instead of kept, and every answer is as before."""

import logging
import re
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from saq_qat_runtime.errors import InputError
from saq_qat_runtime.serve.flips import Flips
from saq_qat_runtime.serve.settings import ServeSettings, ShadowSettings
from saq_qat_runtime.session import Session
from tests.runtime.networks import images, quantized_network
from tests.runtime.serve.client import Address, binary_request
from tests.runtime.serve.conftest import Start, write_bundle


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def keep(flips: Flips) -> bool:
    logits = np.zeros((1, 5), np.float32)
    return flips.keep(images(1), logits, logits)


@pytest.mark.parametrize("size", [0, 1, 500, 1000])
def test_what_does_not_fit_leaves_no_file_and_is_said_once(
    tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    flips = Flips(tmp_path / "kept", 9)
    with caplog.at_level(logging.WARNING):
        with full_disk(size):
            assert [keep(flips) for _ in range(3)] == [False] * 3
        assert list((tmp_path / "kept").iterdir()) == []
        assert keep(flips)
    said = [record.getMessage() for record in caplog.records]
    assert [bool(re.search("not kept in .*kept for now: File too large", line)) for line in said] == [
        True,
        False,
    ]
    assert "again; 3 were not" in said[1]
    (path,) = (tmp_path / "kept").iterdir()
    with np.load(path) as found:
        assert np.array_equal(found["inputs"], images(1))


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_served(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Flips cannot be kept in .*--shadow-keep"):
        Flips(tmp_path / "file" / "kept", 9)


def negated() -> bytes:
    """The tiny network, of the opposite opinion."""
    network = quantized_network()
    for constant in network.graph.initializer:
        if constant.name == "w3_codes":
            constant.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(constant), "w3_codes"))
    content: bytes = network.SerializeToString()
    return content


def metric(address: Address, name: str) -> float:
    text = address.ask("GET", "/metrics").body.decode()
    return sum(float(value) for value in re.findall(rf"^{name}{{.*}} (\S+)$", text, re.MULTILINE))


def test_answers_go_on_while_nothing_can_be_kept(
    start: Start, integer_bundle: Path, integer_session: Session, tmp_path: Path
) -> None:
    other, kept = write_bundle(tmp_path / "other", negated()), tmp_path / "kept"
    shadow = ShadowSettings(bundle=other, share=1.0, keep_folder=kept)
    address = start(integer_bundle, ServeSettings(threads=1, drain_seconds=0.0, shadow=shadow))
    shutil.rmtree(kept)
    for index in range(6):
        reply = address.infer(*binary_request(images(4, seed=index)))
        assert reply.status == 200
        assert reply.body.endswith(integer_session.run(images(4, seed=index)).tobytes())
    end = time.monotonic() + 20
    while metric(address, "saq_shadow_images_total") + 4 * metric(address, "saq_shadow_dropped_total") < 24:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert metric(address, "saq_shadow_unkept_total") > 0
    assert metric(address, "saq_shadow_failures_total") == 0
    kept.mkdir()
    before = metric(address, "saq_shadow_images_total")
    address.infer(*binary_request(images(8)))
    while metric(address, "saq_shadow_images_total") == before:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert address.ask("GET", "/v2/health/ready").status == 200


def test_a_shadow_outlives_an_error_that_nobody_foresaw(
    start: Start, integer_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = ShadowSettings(backend="onnxruntime", share=1.0)
    address = start(integer_bundle, ServeSettings(threads=1, drain_seconds=0.0, shadow=shadow))
    second = address.serving.catalogue.find("tiny")._shadow

    def broken(_images: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(second._session, "run", broken)
        assert address.infer(*binary_request(images(1))).status == 200
        end = time.monotonic() + 20
        while metric(address, "saq_shadow_failures_total") < 1:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert address.infer(*binary_request(images(1))).status == 200
    while metric(address, "saq_shadow_images_total") < 1:
        assert time.monotonic() < end
        time.sleep(0.02)
