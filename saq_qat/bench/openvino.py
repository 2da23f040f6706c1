"""OpenVINO on the CPU, running the graph of a bundle, where the package is installed."""

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.kernels import IntegerCount

__all__ = ["OpenVinoModel", "openvino_installed"]

_PRODUCTS = frozenset({"Convolution", "FullyConnected", "MatMul"})
_INTEGER = frozenset({"u8", "i8"})


def openvino_installed() -> bool:
    """Whether ``openvino`` can be imported."""
    return find_spec("openvino") is not None


class OpenVinoModel:
    """An ONNX model compiled for the CPU, float parts in float32.

    Its fused sum of convolution and residual branch does not round the branch as the bundle says, so that its
    codes may differ from ONNX Runtime's: it serves to compare speed, the proof does not cover it.
    """

    def __init__(self, content: bytes, *, threads: int) -> None:
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._compiled = core.compile_model(core.read_model(content), "CPU", settings)
        self._request = self._compiled.create_infer_request()
        self.version = str(openvino.__version__).split("-")[0]

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Float32 images (N, C, H, W) to logits (N, labels)."""
        result: Any = self._request.infer([batch], share_inputs=True)
        return np.asarray(result[self._compiled.output(0)])

    def integer_count(self) -> IntegerCount:
        """Convolutions and matrix products that run on int8, in the graph OpenVINO runs."""
        kinds: dict[str, int] = {}
        integer = 0
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            facts = node.get_rt_info()
            kind = str(facts["layerType"].astype(str)) if "layerType" in facts else ""
            if kind in _PRODUCTS:
                kinds[kind] = kinds.get(kind, 0) + 1
                integer += facts["runtimePrecision"].astype(str) in _INTEGER
        return IntegerCount(integer, sum(kinds.values()), kinds)
