"""What a bundle on OpenVINO is compared with: the same network there in float32, and as NNCF quantizes it."""

import logging
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from saq_qat.bench.engines import FloatNetwork
from saq_qat_export.graph.onnx_graph import INPUT
from saq_qat_runtime.bench.record import FLOAT_OPENVINO, NNCF_INT8, Candidate
from saq_qat_runtime.bench.runners import Images, Runner
from saq_qat_runtime.bundle.onnx_file import parse_graph
from saq_qat_runtime.openvino import OpenVinoBackend, compile_model, count_integer

__all__ = ["NO_NNCF", "openvino_baselines"]

NO_NNCF = (
    "NNCF's int8 on OpenVINO, what quantization after training gives there: it is not installed. To have it "
    "measured beside the bundle: pip install nncf"
)
_UNQUANTIZED = "the run's weights without quantizers"


def openvino_baselines(form: FloatNetwork, threads: int) -> tuple[list[Runner], tuple[str, ...]]:
    """Float32, and NNCF's post-training int8 where NNCF is installed; and why that one is missing."""
    backend = OpenVinoBackend(form.onnx, threads=threads)
    label = f"{backend.name} {backend.version}"

    def run(images: Images) -> npt.NDArray[np.float32]:
        return backend.run({INPUT: images})[backend.outputs[0].name]

    size = len(form.onnx)
    found = [Runner(Candidate(FLOAT_OPENVINO, label, _UNQUANTIZED, size, backend.integer_count(), None), run)]
    if find_spec("nncf") is None:
        return found, (NO_NNCF,)
    return [*found, _nncf_runner(form, label, threads)], ()


def _nncf_runner(form: FloatNetwork, label: str, threads: int) -> Runner:
    import nncf

    compiled = compile_model(_nncf_model(form.onnx, form.calibration), threads=threads)
    request, logits = compiled.create_infer_request(), compiled.outputs[0]

    def run(images: Images) -> npt.NDArray[np.float32]:
        return np.array(request.infer({INPUT: np.ascontiguousarray(images)})[logits])

    network = f"{_UNQUANTIZED}, quantized by NNCF {nncf.__version__} after training"
    return Runner(Candidate(NNCF_INT8, label, network, None, count_integer(compiled), None), run)


def _nncf_model(model: bytes, batches: Iterable[Images]) -> Any:
    """An ONNX model of float32 as an OpenVINO model that NNCF quantized with its own defaults, those for
    transformers where there is attention.

    Args:
        batches: float32 images (N, C, H, W) to calibrate on.
    """
    import nncf
    import openvino

    images = [image[np.newaxis] for batch in batches for image in batch]
    attention = any(node.op_type == "Softmax" for node in parse_graph(model).nodes)
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if attention else {}
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return nncf.quantize(
            openvino.Core().read_model(model), nncf.Dataset(images), subset_size=len(images), **kind
        )
    finally:
        logger.setLevel(level)
