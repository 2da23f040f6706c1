from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saq_qat_runtime import session as session_module
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.choose import OpenedBundle, open_bundle
from saq_qat_runtime.errors import InputError, RuntimeFault
from saq_qat_runtime.session import Session
from tests.runtime.bundles import file_record
from tests.runtime.fake_tensorrt import expected
from tests.runtime.networks import LABELS, images
from tests.runtime.workshop import Workshop


@pytest.fixture
def load(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Session]:
    """Session.load on the workshop's machine."""

    def open_here(*arguments: Any, **settings: Any) -> OpenedBundle:
        return open_bundle(*arguments, **settings, machine=workshop.machine)

    monkeypatch.setattr(session_module, "open_bundle", open_here)
    return lambda **settings: Session.load(workshop.folder, **settings)


def test_a_session_runs_an_engine_and_says_so(workshop: Workshop, load: Callable[..., Session]) -> None:
    workshop.build()
    with load(threads=2, max_batch=20) as session:
        info = session.info
        assert (info.target, info.backend, info.backend_version) == ("tensorrt", "tensorrt", "10.16.1.11")
        assert (info.model.name, info.threads, info.skipped) == ("model.plan", None, ())
        np.testing.assert_allclose(session(images(20)), expected(images(20)), rtol=1e-4, atol=1e-4)
        assert session(images(0)).shape == (0, LABELS)
        assert session.integer_count().label == "partly integer (2/3 products on integer kernels)"
        with pytest.raises(InputError, match="max_batch"):
            session(images(21))
    assert workshop.library.device.live == 0


def test_a_session_tells_what_it_passed_over(workshop: Workshop, load: Callable[..., Session]) -> None:
    workshop.build()
    workshop.gpu = False
    with load() as session:
        assert session.info.backend == "onnxruntime"
        assert [reason.split(":")[0] for reason in session.info.skipped] == ["tensorrt", "tensorrt-lean"]
        session.self_test()


def test_the_self_test_uses_the_tolerance_of_its_target(
    workshop: Workshop, load: Callable[..., Session], change_manifest: Callable[..., None]
) -> None:
    workshop.build()

    def write_golden(logits: NDArray[np.float32]) -> None:
        np.savez(workshop.folder / "golden.npz", inputs=images(4), logits=logits)
        golden = replace(
            Manifest.load(workshop.folder, verify_files=False).golden,
            file=file_record(workshop.folder / "golden.npz"),
        )
        change_manifest(golden=golden)

    write_golden(expected(images(4)) + np.float32(0.4))
    with load() as session:
        assert session.self_test().largest_difference == pytest.approx(0.4, abs=1e-3)
    write_golden(expected(images(4)) + np.float32(0.6))
    with load() as session, pytest.raises(RuntimeFault, match=r"may differ by 0\.5, but differ by 0\.6"):
        session.self_test()


def test_a_fault_of_the_gpu_ends_the_session(workshop: Workshop, load: Callable[..., Session]) -> None:
    workshop.build()
    session = load()
    session(images(1))
    workshop.library.kernel_error = "cudaErrorIllegalAddress"
    with pytest.raises(RuntimeFault, match="cudaErrorIllegalAddress"):
        session(images(1))
    assert not session.healthy
    with pytest.raises(RuntimeFault, match="broke down earlier"):
        session(images(1))
    session.close()
