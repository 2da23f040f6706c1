"""Layers that compute in float between codes, as ONNX Runtime would quantize their weights by itself."""

import onnx_ir as ir

from saq_qat_export.graph.passes.names import copy_scope

__all__ = ["keep_layers_in_float"]

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})


def keep_layers_in_float(model: ir.Model) -> None:
    """Hand what a layer with float weights computes from codes on through a maximum of one, in place.

    Between DequantizeLinear and QuantizeLinear ONNX Runtime gives such weights scales of its own
    (WeightBiasQuantization), and the results are no longer the network's.
    """
    for node in list(model.graph):
        data, weight = (node.inputs[:2]) if node.op_type in _LAYERS else (None, None)
        source = None if data is None else data.producer()
        is_float = weight is not None and weight.is_initializer() and weight.dtype == ir.DataType.FLOAT
        if source is not None and source.op_type == "DequantizeLinear" and is_float:
            _hand_on(model, node)


def _hand_on(model: ir.Model, layer: ir.Node) -> None:
    result = layer.outputs[0]
    same = ir.node("Max", [result])
    same.outputs[0].shape, same.outputs[0].type = result.shape, result.type
    copy_scope(layer, same)
    result.replace_all_uses_with(same.outputs[0])
    same.replace_input_with(0, result)
    model.graph.insert_after(layer, same)
