"""Linear layers without a bias before a reshape, as OpenVINO can load them."""

import numpy as np
import onnx_ir as ir

from saq_qat_export.graph.passes.names import copy_scope

__all__ = ["keep_scales_before_reshapes"]


def keep_scales_before_reshapes(model: ir.Model) -> None:
    """Hand on what a Gemm without a bias, or of zeros, writes for a Reshape by a maximum of itself, in place.

    Where no bias is added, OpenVINO (2026.4) moves the scales of the layer's channels behind the reshape,
    and refuses a graph where that splits the channels into heads. It moves none behind a maximum. Layers
    that were trained have a bias.
    """
    for node in list(model.graph):
        result = node.outputs[0] if node.op_type == "Gemm" else None
        if result is not None and _adds_nothing(node) and _is_reshaped(result):
            same = ir.node("Max", [result, result])
            same.outputs[0].shape, same.outputs[0].type = result.shape, result.type
            copy_scope(node, same)
            result.replace_all_uses_with(same.outputs[0])
            for index in (0, 1):
                same.replace_input_with(index, result)
            model.graph.insert_after(node, same)


def _is_reshaped(value: ir.Value) -> bool:
    return any(use.node.op_type == "Reshape" for use in value.uses())


def _adds_nothing(gemm: ir.Node) -> bool:
    """Whether the bias is left out, or dequantized from zeros."""
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    dequantize = None if bias is None else bias.producer()
    codes = bias if dequantize is None else dequantize.inputs[0]
    stored = None if codes is None else ir.convenience.get_const_tensor(codes)
    return codes is None or (stored is not None and not np.any(stored.numpy()))
