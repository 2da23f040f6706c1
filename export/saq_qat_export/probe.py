"""Codes as the engine computes them: the same ONNX graph with every code tensor as a further output."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from saq_qat_export.onnx_graph import INPUT, OnnxGraph

__all__ = ["Probe", "with_code_outputs"]

Float32 = npt.NDArray[np.float32]


def with_code_outputs(graph: OnnxGraph) -> bytes:
    """The serialised model with its code tensors (uint8) behind its own outputs."""
    model = onnx.load_from_string(graph.content)
    for name in graph.code_tensors:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    return bytes(model.SerializeToString())


class Probe:
    """An ONNX Runtime session on the CPU that also returns codes; optimized as in production by default."""

    def __init__(self, graph: OnnxGraph, *, optimize: bool = True, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._names: Sequence[str] = graph.code_tensors
        self._session = onnxruntime.InferenceSession(
            with_code_outputs(graph), options, providers=["CPUExecutionProvider"]
        )

    def run(self, images: Float32) -> tuple[dict[str, npt.NDArray[np.uint8]], Float32]:
        """Stored codes by tensor name, and logits, of float32 images (N, C, H, W)."""
        logits, *codes = self._session.run(None, {INPUT: images})
        return dict(zip(self._names, codes, strict=True)), logits
