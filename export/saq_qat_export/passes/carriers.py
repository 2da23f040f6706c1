"""Carriers of codes (reshape, flatten, transpose, ...) behind the DequantizeLinear, as TensorRT asks for."""

import onnx_ir as ir

__all__ = ["dequantize_before_carriers"]

_CARRIERS = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def dequantize_before_carriers(model: ir.Model) -> None:
    """Let every DequantizeLinear read its QuantizeLinear; what stood between them moves behind it, in place.

    Exact: a scale for the whole tensor multiplies each element wherever it lies.
    """
    for node in list(model.graph):
        while node.op_type == "DequantizeLinear" and (carrier := _carrier(node)) is not None:
            _swap(model, node, carrier)


def _carrier(dequantize: ir.Node) -> ir.Node | None:
    source = dequantize.inputs[0]
    producer = None if source is None else source.producer()
    return producer if producer is not None and producer.op_type in _CARRIERS else None


def _swap(model: ir.Model, dequantize: ir.Node, carrier: ir.Node) -> None:
    """The carrier is copied behind ``dequantize``: the carrier itself may have other readers."""
    moved, codes = dequantize.outputs[0], carrier.inputs[0]
    copy = ir.Node("", carrier.op_type, [None, *carrier.inputs[1:]], carrier.attributes.values())
    copy.metadata_props.update(carrier.metadata_props)
    result = copy.outputs[0]
    result.shape, result.type = moved.shape, moved.type
    moved.replace_all_uses_with(result)
    copy.replace_input_with(0, moved)
    dequantize.replace_input_with(0, codes)
    moved.shape = None if codes is None else codes.shape
    model.graph.insert_after(dequantize, copy)
