"""Operations that compute in float between codes, where ONNX Runtime would make integers of its own."""

import onnx_ir as ir

from saq_qat_export.graph.passes.names import copy_scope

__all__ = ["keep_layers_in_float"]

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})


def keep_layers_in_float(model: ir.Model) -> None:
    """Hand on what float weights, and softmax, compute from codes through a maximum of one, in place.

    Between DequantizeLinear and QuantizeLinear ONNX Runtime gives float weights scales of its own
    (WeightBiasQuantization) and computes softmax by a table (QLinearSoftmax): the results are no longer the
    network's.
    """
    for node in list(model.graph):
        if (_has_float_weight(node) or node.op_type == "Softmax") and _reads_codes(node):
            _hand_on(model, node)


def _has_float_weight(node: ir.Node) -> bool:
    weight = node.inputs[1] if node.op_type in _LAYERS else None
    return weight is not None and weight.is_initializer() and weight.dtype == ir.DataType.FLOAT


def _reads_codes(node: ir.Node) -> bool:
    source = None if node.inputs[0] is None else node.inputs[0].producer()
    return source is not None and source.op_type == "DequantizeLinear"


def _hand_on(model: ir.Model, layer: ir.Node) -> None:
    result = layer.outputs[0]
    same = ir.node("Max", [result])
    same.outputs[0].shape, same.outputs[0].type = result.shape, result.type
    copy_scope(layer, same)
    result.replace_all_uses_with(same.outputs[0])
    same.replace_input_with(0, result)
    model.graph.insert_after(layer, same)
