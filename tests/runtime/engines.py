"""TensorRT engines on a FakeDevice, and what they must give."""

import numpy as np

from saq_qat_runtime.tensorrt.backend import Machine, TensorRtBackend
from saq_qat_runtime.tensorrt.library import ENGINE_LIBRARIES
from tests.runtime.fake_tensorrt import PLAN, FakeTensorRt, expected, record_of
from tests.runtime.networks import images

__all__ = ["LEAN", "RTX", "TENSORRT", "backend_of", "check_logits", "machine_of"]

TENSORRT, LEAN, RTX = ENGINE_LIBRARIES


def machine_of(library: FakeTensorRt) -> Machine:
    return Machine(lambda: library.device, lambda _: library)


def backend_of(library: FakeTensorRt, streams: int = 4) -> TensorRtBackend:
    return TensorRtBackend(PLAN, record_of(), TENSORRT, machine=machine_of(library), streams=streams)


def check_logits(backend: TensorRtBackend, count: int, seed: int = 0) -> None:
    """Run `count` images and compare with what the engine must give."""
    batch = images(count, seed)
    found = backend.run({"image": batch})["logits"]
    np.testing.assert_allclose(found, expected(batch), rtol=1e-4, atol=1e-4)
